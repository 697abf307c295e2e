"""The least that a key management service must allow, in the service's own form."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from strongroom.config import KeysConfig
from strongroom.kms._registry import check_keys_config
from strongroom.model import tenant_of


def policy(config: KeysConfig, store_id: UUID | None = None) -> str:
    """The policy for the provider and key of a configuration, as text to be given to the service.

    With ``store_id``, AWS allows only keys of that store; a provider for one tenant's namespaces allows only
    keys of that tenant.

    Raises:
        ConfigurationError: the settings are wrong.
    """
    check_keys_config(config)
    return _POLICIES[config.provider](config, store_id)


def _aws(config: KeysConfig, store_id: UUID | None) -> str:
    statements = [
        _aws_statement(f"StrongroomKey{n}", key, actions, store_id, _tenant_of(config))
        for n, (key, actions) in enumerate(
            [
                (config.key, ["kms:Encrypt", "kms:Decrypt"]),
                *((former, ["kms:Decrypt"]) for former in config.unwrap_keys),
            ]
        )
    ]
    return _json({"Version": "2012-10-17", "Statement": statements})


def _tenant_of(config: KeysConfig) -> str | None:
    """The one tenant that a provider of the configuration is for, when it is for one."""
    tenants = {tenant_of(pattern) for pattern in config.namespaces}
    return tenants.pop() if len(tenants) == 1 else None


def _aws_statement(
    sid: str, key: str, actions: list[str], store_id: UUID | None, tenant: str | None
) -> dict[str, Any]:
    alias = re.search(r"(^|:)(alias/[\w/-]+)$", key, re.ASCII)
    condition: dict[str, dict[str, str]] = {"StringEquals": {}}
    if alias:
        condition["StringEquals"]["kms:RequestAlias"] = alias[2]
    if store_id is not None:
        condition["StringEquals"]["kms:EncryptionContext:store_id"] = str(store_id)
    if tenant is not None:
        condition["StringEquals"]["kms:EncryptionContext:tenant"] = tenant
    if alias:
        region, account = key.split(":")[3:5] if key.startswith("arn:") else ("*", "*")
        resource = f"arn:aws:kms:{region}:{account}:key/*"
    else:
        resource = key if key.startswith("arn:") else f"arn:aws:kms:*:*:key/{key}"
    statement: dict[str, Any] = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resource}
    if condition["StringEquals"]:
        statement["Condition"] = condition
    return statement


def _gcp(config: KeysConfig, _: UUID | None) -> str:
    lines = [
        "# a role of its own, in the project of the key",
        "gcloud iam roles create strongroom --permissions="
        "cloudkms.cryptoKeyVersions.useToEncrypt,cloudkms.cryptoKeyVersions.useToDecrypt",
        "# bound to the key only; MEMBER is serviceAccount:NAME@PROJECT.iam.gserviceaccount.com",
    ]
    for key in (config.key, *config.unwrap_keys):
        project, location, ring, name = key.split("/")[1::2]
        lines.append(
            f"gcloud kms keys add-iam-policy-binding {name} --keyring={ring} --location={location} "
            f"--project={project} --role=projects/{project}/roles/strongroom --member=MEMBER"
        )
    return "\n".join(lines) + "\n"


def _azure(config: KeysConfig, _: UUID | None) -> str:
    role = {
        "Name": "Strongroom",
        "Description": "Read the version of a key, wrap and unwrap with it",
        "Actions": [],
        "DataActions": [
            "Microsoft.KeyVault/vaults/keys/read",
            "Microsoft.KeyVault/vaults/keys/wrap/action",
            "Microsoft.KeyVault/vaults/keys/unwrap/action",
        ],
        "AssignableScopes": ["/subscriptions/SUBSCRIPTION/resourceGroups/GROUP"],
    }
    names = [key.rstrip("/").rpartition("/")[2] for key in (config.key, *config.unwrap_keys)]
    scopes = [
        "az role assignment create --role Strongroom --assignee PRINCIPAL --scope /subscriptions/SUBSCRIPTION"
        f"/resourceGroups/GROUP/providers/Microsoft.KeyVault/vaults/VAULT/keys/{name}"
        for name in names
    ]
    return _json(role) + "\n".join(scopes) + "\n"


def _vault(config: KeysConfig, _: UUID | None) -> str:
    mount = (config.mount or "transit").strip("/")
    paths = [f"{mount}/encrypt/{config.key}"]
    paths += [f"{mount}/decrypt/{key}" for key in (config.key, *config.unwrap_keys)]
    paths.append("auth/token/renew-self")
    return "".join(f'path "{path}" {{\n  capabilities = ["update"]\n}}\n' for path in paths)


def _pkcs11(config: KeysConfig, _: UUID | None) -> str:
    return (
        f"token {config.token}: a user PIN (CKU_USER) for this program alone; no security officer's PIN\n"
        f"key {config.key}: CKO_SECRET_KEY, CKK_AES, CKA_VALUE_LEN 32, CKA_TOKEN true, CKA_PRIVATE true,\n"
        "  CKA_SENSITIVE true, CKA_EXTRACTABLE false, CKA_ENCRYPT true, CKA_DECRYPT true,\n"
        "  CKA_WRAP false, CKA_UNWRAP false, CKA_SIGN false, CKA_DERIVE false\n"
    )


def _local(config: KeysConfig, _: UUID | None) -> str:
    return (
        "the directory of the keys: mode 0700, owned by the user that runs this program\n"
        f"{config.key_file} and keyring.db: mode 0600, same owner; no backup that also holds the data\n"
    )


def _agent(config: KeysConfig, _: UUID | None) -> str:
    return (
        f"the directory of {config.socket}: nobody but the agent's user may make files in it\n"
        "the agent: --allow-user with the user that runs this program, --store with the id of this store\n"
        "the credentials of the service: readable for the agent's user alone\n"
    )


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


_POLICIES: Final[dict[str, Callable[[KeysConfig, UUID | None], str]]] = {
    "local": _local,
    "aws": _aws,
    "gcp": _gcp,
    "azure": _azure,
    "vault": _vault,
    "pkcs11": _pkcs11,
    "agent": _agent,
}
