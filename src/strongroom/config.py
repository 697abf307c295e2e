"""The configuration: ``strongroom.toml`` in the data directory, typed, with a unit in every limit's name.

Unknown keys, wrong types and values out of range are refused with the place and a hint. Secrets never
stand in it: they are references (see ``strongroom.references``) resolved when they are needed.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from strongroom import config_file, references
from strongroom.errors import ConfigurationError

CONFIG_NAME = config_file.CONFIG_NAME
_NAMED = ("models", "key_providers", "roles")  # sections of which there may be several, each with a name


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysConfig:
    """Where the keyring is, and who holds the master key. Relative paths start at the data directory.

    ``provider``: ``local`` (a key file), ``aws``, ``gcp``, ``azure``, ``vault``, ``pkcs11``, ``agent`` (a key
    agent that talks to one of them). What each takes is checked by ``strongroom.kms``; docs/kms/ has a page
    for each.
    """

    directory: str = ""  # of keyring, key file, certificates; empty: DIR.keys beside the data directory DIR
    provider: str = "local"
    key_file: str = "master.key"  # local; relative to ``directory``
    passphrase: str = ""  # local; a reference; empty: the key file is not protected by a passphrase
    suite: str = "AES-256-GCM"  # of what is sealed from now on
    memory: str = "prefer"  # keys in locked memory: ``prefer`` it and say when it is not, or ``require`` it
    key: str = ""  # the master key, as its service names it
    unwrap_keys: tuple[str, ...] = ()  # former master keys that may still unwrap
    also: tuple[str, ...] = ()  # names of [keys.providers.NAME] whose master keys wrap the same keys too
    recovery_keys: tuple[str, ...] = ()  # [keys] only: public keys to which all keys are wrapped too
    namespaces: tuple[str, ...] = ()  # [keys.providers.NAME] only: patterns of the namespaces that it is for
    region: str = ""  # aws, gcp
    endpoint: str = ""  # aws, gcp, vault: https://host[:port]
    ca_file: str = ""  # authorities to trust for the service; empty: those of the system
    credentials: str = ""  # a reference
    algorithm: str = ""  # azure: RSA-OAEP-256 (default) or A256KW
    mount: str = ""  # vault: path of the transit engine; default transit
    namespace: str = ""  # vault
    auth: str = ""  # vault: token (default), approle or kubernetes
    role: str = ""  # vault: role_id of approle, role of kubernetes
    module: str = ""  # pkcs11: path of the library
    token: str = ""  # pkcs11: label of the token
    socket: str = ""  # agent: absolute path of the key agent's socket
    agent_user: str = ""  # agent: the user it runs as, when that is neither this one nor root
    cache_s: int = 7200  # a namespace key is used at most so long after the service has last unwrapped it
    timeout_ms: int = 3000  # of one request
    attempts_max: int = 4  # requests of one call, when the service does not answer


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    content_bytes_max: int = 8 * 1024 * 1024  # of one memory, in UTF-8
    metadata_bytes_max: int = 64 * 1024  # of one memory, as JSON
    tags_max: int = 64  # of one memory
    tag_bytes_max: int = 128
    text_field_bytes_max: int = 512  # kind, subject, agent_id, session_id, sensitivity, source
    derived_from_max: int = 64  # of one memory
    query_bytes_max: int = 32 * 1024
    where_bytes_max: int = 8 * 1024
    results_max: int = 1000  # of one search or listing
    batch_items_max: int = 10_000  # one request of store_many over the network
    request_bytes_max: int = 64 * 1024 * 1024  # of a request over HTTP
    namespaces_per_query_max: int = 256  # of one search
    sql_bytes_max: int = 64 * 1024  # one statement
    sql_nesting_max: int = 64  # brackets and subqueries inside each other
    sql_parts_max: int = 20_000  # nodes of the tree of a statement
    sql_relations_max: int = 200  # queries and relations; those of a WITH for every reference to it
    sql_parameters_max: int = 1000
    sql_value_parts_max: int = 1_000_000  # elements of lists and mappings among them
    sql_rows_max: int = 100_000  # of one answer
    sql_result_bytes_max: int = 64 * 1024 * 1024  # of one answer, in Arrow's form
    sql_namespaces_max: int = 1_000  # whose memories one statement reaches
    sql_timeout_ms: int = 30_000
    sql_statements_max: int = 1024  # checked statements that are kept
    sql_audit_entries_max: int = 10_000  # newest audit entries in SQL: the caller's own, or all


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingConfig:
    """``provider``: ``local`` (MiniLM on ONNX Runtime), ``openai`` (any compatible endpoint), ``none``."""

    provider: str = "local"
    model: str = "all-MiniLM-L6-v2"
    weights: str = ""  # a directory; empty: the installed weights package
    url: str = ""  # openai: base address, for example https://127.0.0.1:9443/v1
    api_key: str = ""  # a reference
    ca_file: str = ""  # openai: authorities to trust; empty: those of the system
    dimensions: int = 384  # of the vectors
    batch_size_max: int = 32  # texts in one run of the model
    flush_interval_ms: int = 100  # in which a memory that waits is taken up
    channel_items_max: int = 10_000  # offered in memory; more wait in the durable queue alone
    attempts_max: int = 8  # of a text that brings the model down, before it is a dead letter
    backoff_ms_min: int = 100
    backoff_ms_max: int = 60_000
    request_timeout_ms: int = 30_000
    threads: int = 0  # local, on cpu: cores that a batch may use; 0: all
    device: str = "cpu"  # local: cpu, or cuda or cuda:N for an NVIDIA GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallConfig:
    vector_weight: float = 1.0  # of the vector lane in the fusion
    keyword_weight: float = 0.6  # of the keyword lane
    rrf_constant: int = 60  # of reciprocal rank fusion
    fusion: tuple[str, ...] = ()  # weights of some namespaces: "team/* keyword=0.4 recency=0.2"
    lane_depth_min: int = 50  # candidates that each lane gives to the fusion, at least
    language: str = "english"  # of new namespaces: stemmer and stop words
    exact_rows_max: int = 20_000  # above: inverted lists
    memory_limit: str = "4GB"  # of the columnar engine
    sealed_in_memory: bool = False  # new namespaces keep content and metadata sealed in memory
    resident_bytes_max: int = 0  # of all loaded indexes with their columns; 0: no limit
    snapshots: bool = True  # sealed copies of the indexes, for a quick start
    snapshot_rows_min: int = 10_000  # namespaces with fewer memories are quick to build
    snapshot_changes_min: int = 5_000  # changes since the last one that make a new one worth while ...
    snapshot_changes_share: float = 0.1  # ... and as a share of the memories
    snapshot_changes_max: int = 30_000  # that the next start has to read again, however large the share
    snapshot_interval_ms_min: int = 60_000  # between two of one namespace
    snapshot_stale_ms_max: int = 3_600_000  # how long one may hold what was deleted or replaced since
    snapshot_close_ms_max: int = 10_000  # that closing may take for writing one; or half of reading the rows
    large_pages: bool = True  # ask the kernel for pages of 2 MiB once some 64 MiB of indexes are loaded
    semantic_match_min: float = 0.4  # cosine from which semantic_match(content, text) is true


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerConfig:
    busy_timeout_ms: int = 10_000  # how long another process may hold the database
    group_items_max: int = 512  # writers that share one fsync


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    host: str = "127.0.0.1"  # address to listen on
    port: int = 8443
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")  # others get 421
    allowed_origins: tuple[str, ...] = ()  # of browsers, beside the own one; others get 403
    certificate: str = "tls/server.pem"  # relative to the keys directory
    private_key: str = "tls/server.key"  # relative as well
    post_quantum: str = "prefer"  # key exchange by X25519MLKEM768: off, prefer or require; [pgwire] too
    client_certificate: str = "off"  # off, optional or required: REST and MCP
    client_ca: str = "tls/client-ca.pem"  # authorities of clients' certificates; relative as well
    client_crl: str = ""  # their revocation lists, PEM or DER; relative to the keys directory
    workers_max: int = 16  # threads that run engine operations
    incoming_bytes_max: int = 512 * 1024 * 1024  # bodies of requests over HTTP, all at once
    unsent_bytes_max: int = 256 * 1024 * 1024  # answers over HTTP that clients have not taken, all at once
    metrics_namespace_labels: bool = False  # names of namespaces in /metrics
    scrub_freed_memory: bool = True  # with a namespace sealed in memory: restart as a process that does


@dataclass(frozen=True, slots=True, kw_only=True)
class PgwireConfig:
    """The PostgreSQL wire, read-only. Certificate and private key are those of [server].

    ``authentication``: ``scram`` (user name: the key id; password: the key), ``password`` (the key as
    password inside TLS, any user name) or ``both`` (SCRAM when the user name has the form of a key id).
    ``client_certificate``: ``off``, ``optional`` or ``required``, checked against ``client_ca``. With
    ``certificate_signs_in`` a certificate whose identity is known needs no password.
    """

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = 5439
    authentication: str = "both"
    channel_binding_required: bool = False  # scram without it is refused
    client_certificate: str = "off"
    client_ca: str = ""  # PEM file; relative to the keys directory; empty: that of [server]
    certificate_signs_in: bool = True
    plaintext_cancel: bool = True  # cancel requests without TLS, as psql before 17 sends them
    connections_max: int = 100
    connections_per_key_max: int = 50
    starting_max: int = 64  # connections that have not signed in yet
    startup_timeout_ms: int = 10_000
    idle_timeout_ms: int = 3_600_000  # 0: none
    send_timeout_ms: int = 60_000  # a client that does not take its answer
    message_bytes_max: int = 16 * 1024 * 1024
    statements_max: int = 1_000  # prepared, of one connection
    portals_max: int = 100  # of one connection
    held_bytes_max: int = 128 * 1024 * 1024  # by the statements, portals and cursors of one connection, about
    all_held_bytes_max: int = 1024 * 1024 * 1024  # the same of all connections together, answers included
    drain_ms: int = 10_000  # for what runs when the server stops


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessConfig:
    auto_create_namespaces: bool = True  # storing into one that is not there makes it
    access_flush_ms: int = 60_000  # of counts of reads, which a crash may lose
    token_minutes_max: int = 60  # how long a token of an API key lives at most
    elevation_minutes_max: int = 480  # how long an elevation lasts at most
    policy_directory: str = ""  # Cedar files; relative to the data directory; empty: no attribute policies
    policy_timezone: str = "UTC"  # of the hour and weekday that policies see
    certificate_tenant: str = ""  # of an identity: "trust-domain" or "path:1" of its SPIFFE ID; empty: none


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationConfig:
    """When keys are due (docs/rotation.md); 0: never by itself. Nothing is ever finalised by itself."""

    master_days: int = 365  # age of a wrap, after which the master key's present version wraps anew
    namespace_days: int = 365
    data_days: int = 365  # records are sealed anew
    data_uses_max: int = 2_147_483_648  # of one data key; the suites refuse at 2^32
    worker: bool = True  # processes that serve work at rotations in the background
    policy_interval_s: int = 3_600  # how often it is looked what is due
    batch_rows: int = 500  # of one transaction
    batch_bytes_max: int = 4 * 1024 * 1024
    lease_ms: int = 10_000  # after which the work of a killed process goes to another one


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardConfig:
    """The doors of a server (docs/identity.md). Each process counts by itself. 0 switches a limit off.

    A source is an IPv4 address or the /64 of an IPv6 address, as the connection shows it.
    """

    principal_requests_per_s: int = 1_000
    principal_burst: int = 2_000
    tenant_requests_per_s: int = 0  # of all callers of one tenant together
    tenant_burst: int = 8_000
    source_requests_per_s: int = 2_000
    source_burst: int = 4_000
    failures_of_credential: int = 10  # wrong proofs of one credential from one source, before waiting begins
    failures_of_source: int = 100  # wrong credentials of any kind from one source
    wait_ms_min: int = 1_000  # after the first failure beyond; doubled with each further one ...
    wait_ms_max: int = 300_000  # ... up to this
    forget_ms: int = 900_000  # failures are forgotten after so long without one
    entries_max: int = 10_000  # sources and callers that are kept in mind


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcConfig:
    """Bearer tokens of an OpenID Connect provider (docs/identity.md). Without ``issuer``: none are taken."""

    issuer: str = ""  # https address, as the tokens say it
    audience: tuple[str, ...] = ()  # what tokens for this server say; one of them is enough
    jwks_file: str = ""  # public keys of the provider; relative to the keys directory; or ...
    jwks_url: str = ""  # ... the https address that gives them
    ca_file: str = ""  # authorities to trust for it; empty: those of the system
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    subject_claim: str = "sub"
    name_claim: str = "name"
    roles_claim: str = "groups"  # its values choose one of [roles.NAME]
    tenant_claim: str = ""  # the claim that says principal.tenant; empty: none does
    clock_skew_s: int = 30
    token_s_max: int = 86_400  # tokens that live longer are refused
    refresh_s: int = 3_600  # how old the keys may get before they are asked for again
    refresh_s_min: int = 60  # between two questions to the provider
    stale_s_max: int = 86_400  # how long the last keys count while the provider does not answer
    timeout_ms: int = 3_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleConfig:
    """What people with one of these values in their claim may do. The first one that fits counts."""

    values: tuple[str, ...] = ()
    scope: str = "read-only"
    grants: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    tenant: str = ""  # of all its people; counts before [oidc] tenant_claim


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """The transparency log, and the places outside the store where its heads are kept (docs/audit.md)."""

    record_memory_ids: bool = True  # above the floor: who, what, where, when, how it ended, how many
    record_subjects: bool = True  # pseudonyms of the data subjects
    record_source_address: bool = True
    integrate_ms: int = 500  # how often committed entries are taken into the tree
    head_files: tuple[str, ...] = ()  # absolute paths outside the store; only ever appended to
    head_webhook: str = ""  # https address; each new head is posted to it
    head_ca_file: str = ""  # authorities to trust for it; empty: those of the system
    head_bucket: str = ""  # s3://bucket/prefix; needs boto3
    head_endpoint: str = ""  # https://host of an S3-compatible service
    head_interval_s: int = 60  # at most one head in so many seconds
    head_timeout_ms: int = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryConfig:
    """OpenTelemetry spans around operations; never content (docs/operations.md). Needs the extra ``otel``."""

    enabled: bool = False
    endpoint: str = ""  # OTLP over HTTP, https://host/v1/traces; empty: the tracer provider of the program
    authorization: str = ""  # a reference to the value of the Authorization header
    ca_file: str = ""  # authorities to trust for it; empty: those of the system
    service_name: str = "strongroom"
    timeout_ms: int = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    level: str = "info"  # debug, info, warning or error
    format: str = "json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    keys: KeysConfig = field(default_factory=KeysConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    recall: RecallConfig = field(default_factory=RecallConfig)
    ledger: LedgerConfig = field(default_factory=LedgerConfig)
    server: ServerConfig = field(default_factory=ServerConfig)
    pgwire: PgwireConfig = field(default_factory=PgwireConfig)
    access: AccessConfig = field(default_factory=AccessConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    oidc: OidcConfig = field(default_factory=OidcConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    rotation: RotationConfig = field(default_factory=RotationConfig)
    log: LogConfig = field(default_factory=LogConfig)
    telemetry: TelemetryConfig = field(default_factory=TelemetryConfig)
    models: dict[str, EmbeddingConfig] = field(default_factory=dict)  # [models.NAME]: further models
    key_providers: dict[str, KeysConfig] = field(default_factory=dict)  # [keys.providers.NAME]: of tenants
    roles: dict[str, RoleConfig] = field(default_factory=dict)  # [roles.NAME]: of people, in this order


def _section(cls: type[Any], name: str, given: Any) -> Any:
    if not isinstance(given, dict):
        raise ConfigurationError(f"[{name}] in {CONFIG_NAME} is not a table")
    types = get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, raw in given.items():
        value = raw
        if key not in types:
            hint = f"known there: {', '.join(sorted(types))}"
            raise ConfigurationError(f"unknown setting {name}.{key} in {CONFIG_NAME}", hint=hint)
        kind = types[key]
        if kind is float and type(value) is int:
            value = float(value)
        elif kind == tuple[str, ...]:
            if not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
                raise ConfigurationError(f"{name}.{key} in {CONFIG_NAME} must be a list of strings")
            value = tuple(value)
        elif type(value) is not kind:
            raise ConfigurationError(f"{name}.{key} in {CONFIG_NAME} must be of type {kind.__name__}")
        if type(value) in (int, float) and value < 0:
            raise ConfigurationError(f"{name}.{key} in {CONFIG_NAME} must not be negative")
        values[key] = value
    return cls(**values)


def parse_config(text: str) -> Config:
    """Read a configuration.

    Raises:
        ConfigurationError: it is no TOML, or a key or value is not known.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise ConfigurationError(f"{CONFIG_NAME} is not TOML: {e}") from None
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets in brackets without end
        raise ConfigurationError(f"{CONFIG_NAME} holds a value that is too large") from None
    sections = get_type_hints(Config)
    for name in data:
        if (name not in sections and name != "store") or name == "key_providers":
            raise ConfigurationError(f"unknown section [{name}] in {CONFIG_NAME}")
    keys = data.get("keys", {})
    providers: Any = {}
    if isinstance(keys, dict):
        providers = keys.get("providers", {})
        data["keys"] = {name: value for name, value in keys.items() if name != "providers"}
    plain = {n: _section(c, n, data.get(n, {})) for n, c in sections.items() if n not in _NAMED}
    return Config(
        **plain,
        models=_named(EmbeddingConfig, "models", data.get("models", {})),
        roles=_named(RoleConfig, "roles", data.get("roles", {})),
        key_providers=_named(KeysConfig, "keys.providers", providers),
    )


def _named(cls: type[Any], place: str, given: Any) -> dict[str, Any]:
    """The sections ``[place.NAME]``."""
    if not isinstance(given, dict):
        raise ConfigurationError(f"[{place}] in {CONFIG_NAME} is not a table")
    return {name: _section(cls, f"{place}.{name}", found) for name, found in given.items()}


def load_config(directory: Path) -> Config:
    """Read ``strongroom.toml`` of a data directory.

    Raises:
        StoreNotFoundError: there is none. ConfigurationError: it is wrong or unreadable, or not one of those
        that the environment names (``strongroom.config_file``).
    """
    return parse_config(config_file.read_config_file(directory))


def resolve_reference(reference: str) -> str:
    """The secret behind a reference (``env:``, ``file:``, ``vault:``, ``aws-secret:``).

    Raises:
        ConfigurationError: it is none of these, or nothing is there.
    """
    return references.resolve(reference)


def keys_directory(data: Path, config: Config) -> Path:
    """Where keyring, key file and certificates lie; by default ``DIR.keys``. Raises: as ``usable``."""
    resolved = config_file.usable(data)
    if config.keys.directory:
        return config_file.usable(data / config.keys.directory)
    return resolved.with_name(resolved.name + ".keys")


def to_toml(config: Config) -> str:
    """The configuration as TOML, every setting written out."""
    lines: list[str] = []
    parts = {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name not in _NAMED}
    parts.update({f"keys.providers.{name}": keys for name, keys in config.key_providers.items()})
    parts.update({f"models.{name}": model for name, model in config.models.items()})
    parts.update({f"roles.{name}": role for name, role in config.roles.items()})
    for name, part in parts.items():
        lines.append(f"[{name}]")
        for f in dataclasses.fields(part):
            lines.append(f"{f.name} = {_toml_value(getattr(part, f.name))}")
        lines.append("")
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return repr(value)


def edit_settings(text: str, section: str, changes: Mapping[str, Any]) -> str:
    """The text of a configuration with some settings of one section changed; everything else stays as it is.

    A setting that stands there is replaced in its place, others are added to the section.

    Raises:
        ConfigurationError: the text is wrong, or written so that it cannot be changed safely.
    """
    before = parse_config(text)
    wanted = dataclasses.replace(
        before, **{section: dataclasses.replace(getattr(before, section), **dict(changes))}
    )
    lines = text.splitlines()
    header = f"[{section}]"
    at = next((i for i, line in enumerate(lines) if line.split("#")[0].strip() == header), None)
    if at is None:
        lines += ["", header]
        at = len(lines) - 1
    for name, value in changes.items():
        begin = _setting(lines, at + 1, name)
        end = begin if begin is None else _value_end(lines, begin)
        new = f"{name} = {_toml_value(value)}"
        if begin is None or end is None:
            lines.insert(at + 1, new)
        else:
            lines[begin:end] = [new]
    out = "\n".join(lines) + "\n"
    try:
        if parse_config(out) == wanted:
            return out
    except ConfigurationError:
        pass
    raise ConfigurationError(
        f"[{section}] in {CONFIG_NAME} is written in a way that this program does not change by itself",
        hint="set by hand: " + ", ".join(changes),
    )


def _setting(lines: Sequence[str], start: int, name: str) -> int | None:
    """The line where a setting of the section that begins above ``start`` stands."""
    for i in range(start, len(lines)):
        if lines[i].lstrip().startswith("["):
            return None
        if lines[i].partition("=")[0].strip() == name and "=" in lines[i]:
            return i
    return None


def _value_end(lines: Sequence[str], begin: int) -> int | None:
    """The line after a value, which may go over several lines."""
    for end in range(begin + 1, min(len(lines), begin + 1000) + 1):
        try:
            tomllib.loads("\n".join(lines[begin:end]))
        except (ValueError, RecursionError):  # TOMLDecodeError is one
            continue
        return end
    return None
