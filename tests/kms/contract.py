"""The suite that every key management provider runs: subclass it and give the two fixtures."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from strongroom.crypto import SecretKey
from strongroom.crypto.danger import expose
from strongroom.errors import (
    ClosedError,
    InvalidInputError,
    KmsDeniedError,
    KmsUnavailableError,
    UnwrapError,
)
from strongroom.keyring._masters import unwrap_first, wrap_all
from strongroom.keyring._rows import MasterRow, WrapRow
from strongroom.kms import Entry, KmsDirectory, KmsProvider

CONTEXT = {
    "store_id": "7a1c3f0e-0000-4000-8000-000000000001",
    "tenant": "company_a",
    "namespace": "3",
    "key_version": "1",
    "purpose": "namespace-key",
}


class _Failing:
    """A provider that does not unwrap while ``error`` is set."""

    def __init__(self, inner: KmsProvider) -> None:
        self._inner = inner
        self.error: Exception | None = None
        self.describe, self.wrap, self.close = inner.describe, inner.wrap, inner.close

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> SecretKey:
        if self.error is not None:
            raise self.error
        return self._inner.unwrap(wrapped, context)


class KmsContract:
    """``provider`` is open and usable; ``foreign`` is of the same kind with another master key."""

    @pytest.fixture
    def provider(self) -> KmsProvider:
        raise NotImplementedError

    @pytest.fixture
    def foreign(self) -> KmsProvider:
        raise NotImplementedError

    def test_it_is_a_provider(self, provider: KmsProvider) -> None:
        """It has the four methods."""
        assert isinstance(provider, KmsProvider)

    def test_round_trip(self, provider: KmsProvider) -> None:
        """What was wrapped comes back under the same context, in whatever order it is given."""
        key = SecretKey.generate()
        wrapped = provider.wrap(key, CONTEXT)
        back = provider.unwrap(wrapped, dict(reversed(CONTEXT.items())))
        assert expose(back) == expose(key)

    def test_wrapped_hides_the_key_and_is_never_the_same(self, provider: KmsProvider) -> None:
        """The key's bytes do not stand in the wrapped form, and wrapping twice gives different bytes."""
        key = SecretKey.generate()
        first, second = provider.wrap(key, CONTEXT), provider.wrap(key, CONTEXT)
        assert first != second
        assert expose(key) not in first + second

    @pytest.mark.parametrize("name", sorted(CONTEXT))
    def test_every_entry_of_the_context_is_bound(self, provider: KmsProvider, name: str) -> None:
        """A changed, missing or renamed entry makes the key impossible to unwrap."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        value = CONTEXT[name]
        rest = {k: v for k, v in CONTEXT.items() if k != name}
        for other in ({**rest, name: value + "x"}, {**rest, name: ""}, rest, {**rest, name + "x": value}):
            with pytest.raises(UnwrapError):
                provider.unwrap(wrapped, other)

    def test_an_added_entry_is_refused(self, provider: KmsProvider) -> None:
        """The context is bound as a whole, not as a subset."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        with pytest.raises(UnwrapError):
            provider.unwrap(wrapped, {**CONTEXT, "more": "1"})

    def test_context_encoding_is_unambiguous(self, provider: KmsProvider) -> None:
        """Moving a character over the border of name and value gives another context."""
        wrapped = provider.wrap(SecretKey.generate(), {"ab": "c"})
        for other in ({"a": "bc"}, {"abc": ""}, {"ab": "c\0"}):
            with pytest.raises(UnwrapError):
                provider.unwrap(wrapped, other)

    def test_every_flipped_byte_is_refused(self, provider: KmsProvider) -> None:
        """No byte of the wrapped form can change unnoticed."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        for i in range(len(wrapped)):
            for flip in (0x01, 0x80):
                bad = wrapped[:i] + bytes((wrapped[i] ^ flip,)) + wrapped[i + 1 :]
                with pytest.raises(UnwrapError):
                    provider.unwrap(bad, CONTEXT)

    def test_every_truncation_is_refused(self, provider: KmsProvider) -> None:
        """No prefix of the wrapped form, and nothing longer, unwraps."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        for bad in [wrapped[:n] for n in range(len(wrapped))] + [wrapped + b"\0", b"\0" + wrapped]:
            with pytest.raises(UnwrapError):
                provider.unwrap(bad, CONTEXT)

    def test_swapped_wrapped_keys_are_refused(self, provider: KmsProvider) -> None:
        """Two wrapped keys that changed places do not unwrap."""
        other = {**CONTEXT, "namespace": "4"}
        a, b = provider.wrap(SecretKey.generate(), CONTEXT), provider.wrap(SecretKey.generate(), other)
        for wrapped, context in ((a, other), (b, CONTEXT)):
            with pytest.raises(UnwrapError):
                provider.unwrap(wrapped, context)

    def test_foreign_master_key(self, provider: KmsProvider, foreign: KmsProvider) -> None:
        """A key wrapped under another master key does not unwrap."""
        with pytest.raises(UnwrapError):
            provider.unwrap(foreign.wrap(SecretKey.generate(), CONTEXT), CONTEXT)

    def test_a_second_service_answers_for_the_first(
        self, provider: KmsProvider, foreign: KmsProvider
    ) -> None:
        """Two of the kind wrap one key: the second is asked when the first is silent, not when it refuses."""
        first = _Failing(provider)
        kms = KmsDirectory(
            {"near": Entry("", lambda: first), "far": Entry("", lambda: foreign)}, fallback=None
        )
        key = SecretKey.generate()
        made = wrap_all(kms, ["near", "far"], key, CONTEXT, registered=None)
        masters = {n: MasterRow(n, w.master.provider, w.master.key_uri, 1, 0) for n, w in enumerate(made, 1)}
        rows = [WrapRow(3, 1, n, n, 0, w.wrapped) for n, w in enumerate(made, 1)]
        for first.error in (None, KmsUnavailableError("no answer")):
            assert expose(unwrap_first(kms, rows, masters, CONTEXT)) == expose(key)
        first.error = KmsDeniedError("refused")
        with pytest.raises(KmsDeniedError):
            unwrap_first(kms, rows, masters, CONTEXT)

    def test_a_failure_tells_nothing(self, provider: KmsProvider, foreign: KmsProvider) -> None:
        """Wrong context, flipped byte and foreign key give one text, and no chained cause."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        cases = [
            (wrapped, {**CONTEXT, "tenant": "company_b"}),
            (wrapped[:-1] + bytes((wrapped[-1] ^ 1,)), CONTEXT),
            (foreign.wrap(SecretKey.generate(), CONTEXT), CONTEXT),
        ]
        texts = set()
        for bad, context in cases:
            with pytest.raises(UnwrapError) as info:
                provider.unwrap(bad, context)
            texts.add(str(info.value))
            assert info.value.__cause__ is None
        assert len(texts) == 1

    @pytest.mark.parametrize(
        "context",
        [
            {},
            {"": "x"},
            {"a": "x" * 1025},
            {"a" * 65: "x"},
            {f"k{i}": "" for i in range(17)},
            {"a": "\ud800"},
            {"a": 1},
        ],
        ids=["empty", "no name", "long value", "long name", "many", "surrogate", "number"],
    )
    def test_bad_contexts(self, provider: KmsProvider, context: Any) -> None:
        """A context that is empty, over a limit or no text is refused by both methods."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        with pytest.raises(InvalidInputError):
            provider.wrap(SecretKey.generate(), context)
        with pytest.raises(InvalidInputError):
            provider.unwrap(wrapped, context)

    def test_describe_holds_no_secret(self, provider: KmsProvider, foreign: KmsProvider) -> None:
        """The description names provider and key, differs between master keys, and is stable."""
        info = provider.describe()
        assert info.provider
        assert info.version >= 1
        assert info == provider.describe()
        assert info.key_uri != foreign.describe().key_uri

    def test_closed(self, provider: KmsProvider) -> None:
        """After close every method raises ClosedError; closing again is no error."""
        wrapped = provider.wrap(SecretKey.generate(), CONTEXT)
        provider.close()
        provider.close()
        with pytest.raises(ClosedError):
            provider.wrap(SecretKey.generate(), CONTEXT)
        with pytest.raises(ClosedError):
            provider.unwrap(wrapped, CONTEXT)
        with pytest.raises(ClosedError):
            provider.describe()

    def test_threads(self, provider: KmsProvider) -> None:
        """Eight threads may use one provider at once."""

        def work(n: int) -> bool:
            context = {**CONTEXT, "namespace": str(n)}
            key = SecretKey.generate()
            return expose(provider.unwrap(provider.wrap(key, context), context)) == expose(key)

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(64)))
