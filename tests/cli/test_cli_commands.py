"""Every command does what it says, and its JSON can be read by a program."""

from __future__ import annotations

import re
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.cli.conftest import Run
from tests.support.database import ledger_file
from tests.support.word_model import WordModel

from strongroom.cli import _output as out
from strongroom.cli._text import printable, shortened
from strongroom.engine import Session

NS = "company_a/support"
ROOT = Path(__file__).resolve().parents[2]


def stored(run: Run, content: str, *options: str, namespace: str = NS) -> str:
    """Store a memory; its id."""
    answer = run("--json", "store", "-n", namespace, *options, content).json
    return str(answer["memory_id"])


def test_init_makes_a_private_store_with_certificates_and_says_where_the_keys_are(
    command: Run, tmp_path: Path
) -> None:
    data, keys = tmp_path / "room", tmp_path / "elsewhere"
    answer = command(
        "--json", "--data", str(data), "init", "--keys", str(keys), "--host", "memory.example.org"
    )
    assert answer.json["keys"] == str(keys)
    assert answer.json["passphrase"] is False
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    for name in ("master.key", "keyring.db", "tls/server.key", "tls/ca.key"):
        assert stat.S_IMODE((keys / name).stat().st_mode) == 0o600
    assert (keys / "tls/ca.pem").exists()
    assert {p.name for p in data.iterdir()} >= {"strongroom.toml", "ledger.db"}
    assert "memory.example.org" in (data / "strongroom.toml").read_text()


def test_init_advises_to_keep_the_backup_of_the_keys_apart(command: Run, tmp_path: Path) -> None:
    answer = command("--data", str(tmp_path / "room"), "init", "--embedding", "none")
    assert str(tmp_path / "room.keys") in answer.out
    assert "keep that backup apart from the data" in answer.out


def test_init_refuses_a_directory_that_holds_a_store(run: Run) -> None:
    assert "(store_exists)" in run("init", status=4).err


def test_a_passphrase_file_protects_the_key_file(command: Run, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery\n")
    secret.chmod(0o600)
    at = ("--data", str(tmp_path / "room"))
    options = ("--passphrase-file", str(secret), "--embedding", "none", "--suite", "ChaCha20-Poly1305")
    assert command("--json", *at, "init", *options).json["passphrase"] is True
    command(*at, "store", "-n", NS, "sealed under a passphrase")
    secret.write_text("wrong horse battery\n")
    assert "(unwrap_failed)" in command(*at, "stats", status=9).err


def test_a_memory_is_stored_with_all_its_fields_and_read_again(run: Run) -> None:
    options = (
        "--subject", "user:42", "--kind", "preference", "--tag", "pricing", "--tag", "mail",
        "--importance", "0.7", "--metadata", '{"plan": "enterprise"}', "--agent", "triage",
        "--session", "s-1", "--sensitivity", "high", "--source", "chat", "--expires", "7d",
    )  # fmt: skip
    memory_id = stored(run, "Prefers annual billing.", *options)
    memory = run("get", "-n", NS, memory_id, "--json").json
    assert memory["content"] == "Prefers annual billing."
    assert memory["tags"] == ["pricing", "mail"]
    assert memory["metadata"] == {"plan": "enterprise"}
    assert (memory["subject"], memory["kind"], memory["importance"]) == ("user:42", "preference", 0.7)
    assert (memory["agent_id"], memory["session_id"], memory["source"]) == ("triage", "s-1", "chat")
    assert memory["sensitivity"] == "high"
    assert memory["expires_at"] > memory["created_at"]
    shown = run("get", "-n", NS, memory_id).out
    assert "Prefers annual billing." in shown
    assert "user:42" in shown


@pytest.mark.parametrize("argument", [["-"], []])
def test_content_comes_from_stdin(run: Run, argument: list[str]) -> None:
    answer = run("--json", "store", "-n", NS, *argument, input="Zwei Zeilen,\nmit Ümlaut.\n")
    assert answer.json["content"] == "Zwei Zeilen,\nmit Ümlaut."


def test_wait_returns_when_the_memory_is_found_by_meaning(run: Run) -> None:
    assert run("--json", "store", "-n", NS, "--wait", "annual billing").json["has_embedding"] is True
    assert run("--json", "store", "-n", NS, "no waiting").json["has_embedding"] is False
    assert run("--json", "flush").json == {
        "memories": 2, "embedded": 2, "pending": 0, "dead": 0, "namespaces": 1, "unavailable": 0
    }  # fmt: skip


def test_search_finds_filters_and_shows_scores(run: Run) -> None:
    first = stored(run, "worried about the price", "--kind", "concern", "--wait")
    stored(run, "the price is fine", "--kind", "praise", "--wait")
    hits = run("--json", "search", "-n", NS, "-k", "5", "--kind", "concern", "price").json["hits"]
    assert [h["memory"]["memory_id"] for h in hits] == [first]
    assert hits[0]["similarity"] > 0
    found = run("--json", "search", "-n", "company_a/*", "--where", "kind = 'praise'", "price").json["hits"]
    assert [h["memory"]["kind"] for h in found] == ["praise"]
    table = run("search", "-n", NS, "price").out
    assert "worried about the price" in table
    assert first in table
    explained = run("search", "-n", NS, "--explain", "worried price").out
    assert all(part in explained for part in ("words #1 x0.6", "worried about the price", first))
    assert "nothing found" in run("search", "-n", NS, "--kind", "none", "price").out


def test_a_search_that_finds_too_few_tells_what_waits_for_its_embedding(run: Run) -> None:
    """Somebody who stores and asks at once learns why meaning finds nothing yet, and what to do."""
    stored(run, "Prefers annual billing")
    answer = run("search", "-n", NS, "how do they pay?")
    assert answer.out == "nothing found\n"
    assert "1 memory waits for an embedding" in answer.err and "strongroom flush" in answer.err
    assert not run("search", "-n", NS, "--mode", "keyword", "pay").err
    assert not run("--json", "search", "-n", NS, "how do they pay?").err
    run("flush")
    assert not run("search", "-n", NS, "how do they pay?").err


def test_list_pages_with_a_cursor_and_all_prints_a_line_each(run: Run) -> None:
    ids = [stored(run, f"memory {n}") for n in range(5)]
    first = run("--json", "list", "-n", NS, "--limit", "2").json
    assert len(first["memories"]) == 2
    second = run("--json", "list", "-n", NS, "--limit", "3", "--cursor", first["next_cursor"]).json
    got = [m["memory_id"] for m in first["memories"] + second["memories"]]
    assert sorted(got) == sorted(ids)
    every = run("--json", "list", "-n", NS, "--limit", "2", "--all").lines
    assert [m["memory_id"] for m in every] == got
    assert "more: --cursor" in run("list", "-n", NS, "--limit", "2").out
    for memory_id in ids:
        assert memory_id in run("list", "-n", NS, "--all", "--limit", "2").out


def test_update_changes_what_is_given_and_clears_what_is_named(run: Run) -> None:
    memory_id = stored(run, "old", "--tag", "a", "--agent", "x")
    new = run(
        "--json", "update", "-n", NS, memory_id, "--content", "new", "--no-tags", "--clear", "agent",
        "--expected-version", "1",
    ).json  # fmt: skip
    assert (new["content"], new["tags"], new["agent_id"], new["version"]) == ("new", [], None, 2)
    again = ("update", "-n", NS, memory_id, "--kind", "k", "--expected-version", "1")
    assert "(version_conflict)" in run(*again, status=4).err
    assert "(invalid_input)" in run("update", "-n", NS, memory_id, status=2).err


def test_delete_is_idempotent_and_tells_whether_it_was_there(run: Run) -> None:
    memory_id = stored(run, "to be forgotten")
    assert run("--json", "delete", "-n", NS, memory_id).json == {"deleted": True}
    assert run("--json", "delete", "-n", NS, memory_id).json == {"deleted": False}
    assert "(memory_not_found)" in run("get", "-n", NS, memory_id, status=3).err


def test_a_key_is_made_listed_held_to_its_grants_and_revoked(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stored(run, "billing of ours")
    stored(run, "theirs", namespace="company_b/support")
    made = run("--json", "keys", "create", "--name", "s", "--scope", "read-write", "-n", "company_a/*").json
    assert made["api_key"].startswith("sr_live_")
    assert made["key"]["grants"] == ["company_a/*"]
    listed = run("--json", "keys", "list")
    assert [k["key_id"] for k in listed.json["keys"]] == [made["key"]["key_id"]]
    assert made["api_key"] not in listed.out + run("keys", "list").out
    file = tmp_path / "api.key"
    file.write_text(made["api_key"] + "\n")
    held = ("--api-key-file", str(file), "--json")
    assert len(run(*held, "search", "-n", NS, "billing of ours").json["hits"]) == 1
    assert "access_denied" in run(*held, "search", "-n", "company_b/support", "theirs", status=5).err
    assert "access_denied" in run(*held, "keys", "list", status=5).err
    assert run("--json", "keys", "revoke", made["key"]["key_id"]).json["key"]["revoked_at"]
    monkeypatch.setenv("STRONGROOM_API_KEY", made["api_key"])
    assert "(unauthenticated)" in run("search", "-n", NS, "billing of ours", status=5).err


def test_an_empty_api_key_is_refused_and_not_taken_for_the_owner(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRONGROOM_API_KEY", "")
    assert "(unauthenticated)" in run("stats", status=5).err


def test_the_text_of_a_key_is_alone_on_stdout(run: Run) -> None:
    answer = run("keys", "create", "--name", "s", "--scope", "admin", "-n", "*")
    assert len(answer.out.split()) == 1
    assert "shown this once" in answer.err


def test_namespaces_are_made_changed_and_listed(run: Run) -> None:
    assert run("--json", "namespaces", "create", "b/c", "--language", "german").json["language"] == "german"
    assert run("--json", "namespaces", "update", "b/c", "--language", "french").json["language"] == "french"
    assert [n["name"] for n in run("--json", "namespaces", "list").json["namespaces"]] == ["b/c"]
    assert "b/c" in run("namespaces", "list").out
    assert "(conflict)" in run("namespaces", "create", "b/c", status=4).err
    assert "(namespace_not_found)" in run("namespaces", "update", "x/y", status=3).err


def test_dead_letters_are_listed_and_requeued(run: Run, model: WordModel) -> None:
    model.poison = "poison"
    memory_id = stored(run, "this is poison", "--wait")
    dead = run("--json", "queue", "list", "--dead").json["entries"]
    assert [(e["memory_id"], e["dead"], e["error"]) for e in dead] == [
        (memory_id, True, "embedding_rejected")
    ]
    assert memory_id in run("queue", "list").out
    model.poison = ""
    assert run("--json", "queue", "requeue").json == {"requeued": 1}
    assert run("--json", "flush").json["embedded"] == 1
    assert run("--json", "queue", "list").json == {"entries": []}


def test_every_operation_of_a_session_has_its_command() -> None:
    """What Python can do the command line can: each operation is called by some command."""
    source = "\n".join(p.read_text("utf-8") for p in (ROOT / "src/strongroom/cli").glob("*.py"))
    missing = {n for n in dir(Session) if n[0] != "_" and not re.search(rf"\.{n}\b", source)}
    assert missing == {
        "check_standing",  # for surfaces that hand out an answer in parts
        "overview",  # the tool memory_stats: whoami, stats and namespaces in one
        "sql_cancel",  # Ctrl-C
        "sql_describe",  # for drivers
        "store_many",  # import
    }


def test_a_table_that_goes_to_no_terminal_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Names, numbers and states are whole, however wide that is; only the column meant for it is folded."""
    columns = tuple(f"column {n}" for n in range(12))
    row = tuple(f"value-{n}-" + "x" * 20 for n in range(12))
    out.table(columns, [row])
    shown = capsys.readouterr().out
    assert all(value in shown for value in (*columns, *row))
    out.table((*columns, "text"), [(*row, "word " * 40)], wide="text")
    shown = capsys.readouterr().out
    assert all(value in shown for value in row) and "…" not in shown
    assert shown.count("word") == 40


def test_a_list_without_rows_says_so_beside_the_answer(run: Run) -> None:
    """Silence could mean that something went wrong; programs read an empty stdout all the same."""
    for words in ("keys list", "namespaces list", "list -n *", "certificates list"):
        answer = run(*words.split())
        assert (answer.out, answer.err) == ("", "(none)\n"), words
    answer = run("search", "-n", "*", "anything")
    assert (answer.out, answer.err) == ("nothing found\n", "")


def test_the_audit_log_names_who_did_what_from_where(run: Run) -> None:
    memory_id = stored(run, "audited")
    entries = run("--json", "audit").lines
    last = entries[-1]
    assert (last["action"], last["surface"], last["principal"]) == ("store", "cli", "owner")
    assert last["memory_ids"] == [memory_id]
    later = run("--json", "audit", "--after", str(last["seq"])).lines
    assert all(e["seq"] > last["seq"] for e in later)
    assert "store" in run("audit").out
    assert "audited" not in run("audit").out


def test_check_is_clean_on_a_good_store_and_exits_1_on_a_flipped_byte(run: Run, data: Path) -> None:
    stored(run, "sealed", "--wait")
    good = run("--json", "check", "--read-data").json
    assert good["ok"] is True
    assert good["opened"] == good["rows"]
    run("check", "--subset", "1/2")
    break_ledger(data, "UPDATE record SET sealed = zeroblob(length(sealed)) WHERE ns = 1 AND field = 0")
    bad = run("--json", "check", "--read-data", status=1).json
    assert bad["ok"] is False
    assert "row_unreadable" in {f["code"] for f in bad["findings"]}
    assert "(row_unreadable)" in run("check", "--read-data", status=1).out


def break_ledger(data: Path, statement: str) -> None:

    db = ledger_file(data)
    db.execute(statement)
    assert db.changes() >= 1
    db.close()


def test_repair_queues_what_lost_its_vector(run: Run, data: Path) -> None:
    stored(run, "has a vector", "--wait")
    assert "nothing to repair" in run("repair").out
    break_ledger(data, "DELETE FROM record WHERE ns = 1 AND field = 1")
    assert [f["code"] for f in run("--json", "repair").json["done"]] == ["vectors_queued"]
    assert run("--json", "flush").json["embedded"] == 1
    run("check", "--read-data")


def test_missing_rows_are_accepted_only_when_that_is_said(run: Run, data: Path) -> None:
    stored(run, "stays")
    break_ledger(data, f"DELETE FROM record WHERE memory_id = x'{UUID(stored(run, 'goes', '--wait')).hex}'")
    run("repair")
    found = {f["code"] for f in run("--json", "check", status=1).json["findings"]}
    assert "rows_do_not_match_head" in found
    assert "(head_made_anew)" in run("repair", "--accept-loss").out
    run("check", "--read-data")
    assert "head_made_anew" not in run("repair", "--accept-loss").out


def test_version_names_what_it_rests_on(command: Run) -> None:
    found = command("--json", "version").json
    assert {"strongroom", "python", "sqlite", "openssl", "cryptography"} <= set(found)
    assert command("--version").out.strip().endswith(found["strongroom"])


def test_tls_renew_keeps_the_authority_and_the_names(command: Run, tmp_path: Path) -> None:
    at = ("--json", "--data", str(tmp_path / "room"))
    command(*at, "init", "--embedding", "none", "--host", "one.example.org")
    authority = (tmp_path / "room.keys/tls/ca.pem").read_bytes()
    hosts = command(*at, "tls", "renew", "--host", "two.example.org").json["hosts"]
    assert {"one.example.org", "two.example.org", "localhost"} <= set(hosts)
    assert (tmp_path / "room.keys/tls/ca.pem").read_bytes() == authority


def test_json_may_stand_before_or_after_the_command(run: Run) -> None:
    assert run("--json", "stats").json == run("stats", "--json").json
    assert run("namespaces", "list", "--json").json == {"namespaces": []}


def test_content_cannot_command_a_terminal(run: Run) -> None:
    memory_id = stored(run, "red \x1b[31malert\x07 and \u202e back billing")
    for answer in (
        run("get", "-n", NS, memory_id),
        run("list", "-n", NS),
        run("search", "-n", NS, "billing"),
    ):
        assert "\x1b" not in answer.out
        assert "\x07" not in answer.out
        assert "\u202e" not in answer.out
        assert "\\x1b[31malert" in answer.out
    assert (
        run("--json", "get", "-n", NS, memory_id).json["content"]
        == "red \x1b[31malert\x07 and \u202e back billing"
    )


def test_rich_markup_in_content_is_shown_as_it_is(run: Run) -> None:
    stored(run, "[bold]not markup[/bold] :smile:")
    assert "[bold]not markup[/bold] :smile:" in run("list", "-n", NS).out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x00b", "a\\x00b"),
        ("a\u200bb", "a\\u200bb"),
        ("zwei\nZeilen", "zwei\nZeilen"),
        ("naïve 🙂", "naïve 🙂"),
    ],
)
def test_printable_escapes_what_is_no_text(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_shortened_text_is_one_line_and_marks_the_cut() -> None:
    assert shortened("a\n b", 10) == "a b"
    assert shortened("x" * 50, 10) == "x" * 9 + "…"
    assert shortened(" " * 1000 + "end", 10).endswith("…")


def test_relative_times_are_taken_back_from_now(run: Run) -> None:
    stored(run, "just now")
    assert len(run("--json", "list", "-n", NS, "--created-after", "1h").json["memories"]) == 1
    assert run("--json", "list", "-n", NS, "--created-before", "1h").json["memories"] == []


def test_ids_are_uuids(run: Run) -> None:
    wanted = "0b8a3c1e-5d5e-4a3f-9a55-2f6d8c1b7e90"
    assert UUID(stored(run, "with an id", "--id", wanted)) == UUID(wanted)
    assert "(duplicate_memory)" in run("store", "-n", NS, "--id", wanted, "again", status=4).err


def test_flush_gives_up_after_its_time_and_says_what_waits(
    run: Run, model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from strongroom.cli import _progress

    monkeypatch.setattr(_progress, "_FIRST_LOOK_S", 0.05)
    monkeypatch.setattr(_progress, "_LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(_progress, "_LINE_EVERY_S", 0.0)
    release = threading.Event()
    original = model.embed

    def slow(texts: Sequence[str]) -> NDArray[np.float32]:
        release.wait(60)
        return original(texts)

    monkeypatch.setattr(model, "embed", slow)
    stored(run, "waits for long")
    threading.Timer(1.5, release.set).start()  # so that closing the store does not wait for long
    answer = run("flush", "--timeout", "0.3", status=6)
    assert "(timeout)" in answer.err
    assert "embedding: 0 of 1 memories" in answer.err
    assert run("--json", "flush").json["embedded"] == 1


def test_namespaces_take_and_show_the_switch_of_sealing_in_memory(command: Run, tmp_path: Path) -> None:
    """namespaces create and update turn it, list shows it."""
    at = ("--data", str(tmp_path / "room"))
    command(*at, "init", "--embedding", "none")
    made = command(*at, "--json", "namespaces", "create", "acme/new", "--sealed-in-memory").json
    assert made["sealed_in_memory"] is True
    assert "sealed" in command(*at, "namespaces", "list").out
    opened = command(*at, "--json", "namespaces", "update", "acme/new", "--open-in-memory").json
    assert opened["sealed_in_memory"] is False


def test_what_is_missing_from_an_answer_is_said_beside_it(run, data):
    """A damaged memory: a remark on stderr for people, in the object for programs."""
    made = run("--json", "store", "-n", NS, "the harbour at night").json
    run("store", "-n", NS, "the harbour at noon")
    db = ledger_file(data)
    raw_id = UUID(made["memory_id"]).bytes
    (sealed,) = db.execute("SELECT sealed FROM record WHERE memory_id=? AND field=0", (raw_id,)).fetchone()
    db.execute(
        "UPDATE record SET sealed=? WHERE memory_id=? AND field=0",
        (sealed[:70] + bytes([sealed[70] ^ 1]) + sealed[71:], raw_id),
    )
    db.close()
    for command in (
        ("search", "-n", NS, "harbour"),
        ("list", "-n", NS),
        ("sql", "-c", "SELECT content FROM memories"),
    ):
        answer = run(*command)
        assert "noon" in answer.out and "night" not in answer.out
        assert (
            "some memories are damaged and take no part" in answer.err and "check --read-data" in answer.err
        )
        told = run("--json", *command)
        assert [n["code"] for n in told.json["notices"]] == ["unreadable_memories"]
    for n in range(3):
        run("store", "-n", NS, f"the harbour, {n}")
    for command in (("list", "-n", NS, "--all", "--limit", "1"), ("--json", "list", "-n", NS, "--all")):
        answer = run(*command)
        assert "noon" in answer.out and answer.err.count("some memories are damaged") == 1, command
