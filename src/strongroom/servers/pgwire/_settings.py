"""Run-time settings of a session: what clients set and read, with PostgreSQL's names and rules.

Three kinds: fixed ones that are read only; ones with a set of values that this server can honour; and
ones that change nothing here and are kept for whoever reads them back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from zoneinfo import available_timezones

from strongroom.errors import InvalidInputError
from strongroom.model import check_words
from strongroom.servers.pgwire._errors import PgError

__all__ = ["REPORTED", "SERVER_VERSION", "Settings", "duration_ms"]

SERVER_VERSION: Final = "15.0"
SERVER_VERSION_NUM: Final = "150000"
REPORTED: Final = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "application_name",
    "default_transaction_read_only",
    "in_hot_standby",
    "is_superuser",
    "session_authorization",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
)
_FIXED: Final = {
    "server_version": SERVER_VERSION,
    "server_version_num": SERVER_VERSION_NUM,
    "server_encoding": "UTF8",
    "default_transaction_read_only": "on",
    "in_hot_standby": "off",
    "is_superuser": "off",
    "integer_datetimes": "on",
    "max_identifier_length": "63",
    "max_index_keys": "32",
    "block_size": "8192",
    "lc_collate": "C",
    "lc_ctype": "C",
    "ssl": "on",
    "transaction_read_only": "on",
    "transaction_isolation": "read committed",
    "session_authorization": "",
}
_KEPT: Final = {
    "application_name": "",
    "backslash_quote": "safe_encoding",
    "bytea_output": "hex",
    "client_min_messages": "notice",
    "cursor_tuple_fraction": "0.1",
    "default_statistics_target": "100",
    "default_table_access_method": "heap",
    "default_tablespace": "",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "enable_seqscan": "on",
    "escape_string_warning": "on",
    "extra_float_digits": "1",
    "geqo": "on",
    "idle_in_transaction_session_timeout": "0",
    "jit": "off",
    "lc_messages": "C",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "lock_timeout": "0",
    "quote_all_identifiers": "off",
    "row_security": "on",
    "search_path": '"$user", public',
    "ssl_renegotiation_limit": "0",
    "statement_timeout": "0",
    "synchronize_seqscans": "on",
    "tcp_keepalives_idle": "0",
    "work_mem": "4MB",
}
_CHOSEN: Final = {
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",
}
_NAMES: Final = {n.lower(): n for n in (*_FIXED, *_KEPT, *_CHOSEN)}
_VALUE_CHARACTERS_MAX: Final = 1_024
_CUSTOM_MAX: Final = 64
_WORDS: Final = {"strongroom.purpose": "purpose", "strongroom.reason": "reason"}  # said with every statement
_UNITS_MS: Final = {"": 1, "ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "us": 0.001}


def duration_ms(text: str) -> int:
    """A duration as settings are written: a number, with ms when nothing else is said.

    Raises:
        PgError: 22023.
    """
    word = text.strip().lower()
    digits = word.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = word[len(digits) :].strip()
    try:
        number = float(digits) * _UNITS_MS[unit]
    except (ValueError, KeyError):
        number = -1.0
    if not 0 <= number <= 2**31 - 1:
        raise PgError("22023", "invalid value for a duration", hint='for example 500, "30s" or "5min"')
    return int(number)


def _encoding(value: str) -> str:
    if value.strip(" '\"").lower().replace("-", "").replace("_", "") not in ("utf8", "unicode"):
        raise PgError("22023", "the only client_encoding is UTF8")
    return "UTF8"


def _date_style(value: str) -> str:
    words = [w.strip().lower() for w in value.split(",")]
    if not all(w in ("iso", "mdy", "dmy", "ymd", "us", "european", "euro", "default", "") for w in words):
        raise PgError("22023", "the only DateStyle is ISO")
    return "ISO, MDY"


def _interval_style(value: str) -> str:
    if value.lower() != "postgres":
        raise PgError("22023", "the only IntervalStyle is postgres")
    return "postgres"


def _strings(value: str) -> str:
    if value.lower() not in ("on", "true", "yes", "1"):
        raise PgError("22023", "standard_conforming_strings is always on")
    return "on"


_CHECKS: Final[Mapping[str, Callable[[str], str]]] = {
    "client_encoding": _encoding,
    "DateStyle": _date_style,
    "IntervalStyle": _interval_style,
    "standard_conforming_strings": _strings,
}
_ZONES_UTC: Final = frozenset(
    {"utc", "etc/utc", "gmt", "zulu", "etc/gmt", "uct", "0", "z", "default", "local"}
)


class Settings:
    """The settings of one session. ``changed`` collects what must be reported to the client."""

    def __init__(self, user: str) -> None:
        self._start: dict[str, str] = {**_KEPT, **_CHOSEN}
        self._values = dict(self._start)
        self._user = user
        self.changed: list[tuple[str, str]] = []
        self.warnings: list[tuple[str, str]] = []

    def get(self, name: str) -> str:
        """Raises: PgError 42704: there is no such setting."""
        canonical = _NAMES.get(name.lower(), name.lower())
        if canonical == "session_authorization":
            return self._user
        if canonical in _FIXED:
            return _FIXED[canonical]
        try:
            return self._values[canonical]
        except KeyError:
            raise PgError("42704", f'unrecognized configuration parameter "{_shown(name)}"') from None

    def find(self, name: str) -> str | None:
        try:
            return self.get(name)
        except PgError:
            return None

    def all(self) -> list[tuple[str, str]]:
        """Every setting by name."""
        return sorted({**_FIXED, **self._values, "session_authorization": self._user}.items())

    def set(self, name: str, value: str) -> str:
        """Change one; the value as it is kept.

        Raises:
            PgError: 22023, a value that cannot be; 55P02 or 25006, it cannot be changed; 42704, unknown.
        """
        canonical = _NAMES.get(name.lower())
        if len(value) > _VALUE_CHARACTERS_MAX:
            raise PgError("22023", "the value of a setting is too long")
        if canonical is None:
            return self._custom(name.lower(), value)
        if canonical in _FIXED:
            self._fixed(canonical, value)
            return _FIXED[canonical]
        kept = value
        if canonical == "TimeZone":
            kept = self._zone(value)
        elif canonical in _CHECKS:
            kept = _CHECKS[canonical](value)
        elif canonical == "statement_timeout":
            kept = str(duration_ms(value))
        elif canonical == "application_name":
            kept = "".join(c if " " <= c <= "~" else "?" for c in value)[:64]
        self._put(canonical, kept)
        return kept

    def _put(self, canonical: str, value: str) -> None:
        if self._values.get(canonical) != value and canonical in REPORTED:
            self.changed.append((canonical, value))
        self._values[canonical] = value

    def _custom(self, name: str, value: str) -> str:
        if "." not in name or len(name) > 63:
            raise PgError("42704", f'unrecognized configuration parameter "{_shown(name)}"')
        if name not in self._values and len(self._values) >= len(self._start) + _CUSTOM_MAX:
            raise PgError("53400", "too many custom settings")
        if name in _WORDS:
            try:
                check_words(_WORDS[name], value)
            except InvalidInputError as e:
                raise PgError("22023", e.message, hint=e.hint) from None
        self._values[name] = value
        return value

    @property
    def words(self) -> dict[str, str]:
        """What the client says that its statements are for: purpose and reason."""
        return {word: self._values.get(name, "").strip(" ") for name, word in _WORDS.items()}

    def _fixed(self, canonical: str, value: str) -> None:
        wanted = value.strip().lower()
        if wanted == _FIXED[canonical].lower() or wanted == "default":
            return
        if canonical in ("default_transaction_read_only", "transaction_read_only"):
            if wanted in ("on", "true", "yes", "1"):
                return
            raise PgError("25006", "cannot set transaction read-write mode: this surface is read-only")
        if canonical == "transaction_isolation":
            self.warnings.append(ISOLATION_WARNING)
            return
        raise PgError("55P02", f'parameter "{canonical}" cannot be changed')

    def _zone(self, value: str) -> str:
        if value.strip().lower() not in _ZONES_UTC:
            if (
                value not in available_timezones()
                and not value.strip().lstrip("+-").replace(":", "").isdigit()
            ):
                raise PgError("22023", "unknown time zone")
            self.warnings.append(("01000", "times are always given in UTC; TimeZone stays UTC"))
        return "UTC"

    def reset(self, name: str | None) -> None:
        """Back to what the session began with; None: all."""
        names = list(self._values) if name is None else [_NAMES.get(name.lower(), name.lower())]
        for each in names:
            if each in self._start:
                self._put(each, self._start[each])
            elif each not in _FIXED:
                if name is not None and each not in self._values:
                    self.get(each)
                self._values.pop(each, None)

    def begun(self) -> None:
        """What is set so far is what RESET goes back to: the start-up message has been taken in."""
        self._start = dict(self._values)
        self.changed.clear()

    def snapshot(self) -> dict[str, str]:
        return dict(self._values)

    def restore(self, snapshot: Mapping[str, str]) -> None:
        for name in [n for n in self._values if n not in snapshot]:
            del self._values[name]
        for name, value in snapshot.items():
            self._put(name, value)

    @property
    def statement_timeout_ms(self) -> int:
        return int(self._values["statement_timeout"])


ISOLATION_WARNING: Final = (
    "01000",
    "every statement reads the newest committed state; the isolation level stays read committed",
)


def _shown(name: str) -> str:
    return name[:64].replace('"', "")
