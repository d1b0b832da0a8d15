# SPDX-License-Identifier: Apache-2.0
"""Verifying a run whose adapters are certified: honest, tampered, transplanted, hidden; and figures in every line."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb import events as chain
from flb import records
from flb.spec import RunSpec
from flb.types import Digest
from flb_cli.replay import Report, replay
from tests.flb_node.test_download import seal
from tests.product_rounds import MODULES, product_spec
from tests.served import Served, serve
from tests.sim import DOMAIN

pytestmark = pytest.mark.e2e


def optimized(name: str) -> RunSpec:
    """A run whose server optimizer keeps moments."""
    spec = product_spec(align=True)
    settings = dataclasses.replace(spec.server_optimizer, name=name, learning_rate=0.5 if name == "momentum" else 1e-3)
    return dataclasses.replace(spec, server_optimizer=settings)


SPECS: dict[str, Callable[[], RunSpec]] = {
    "product": product_spec,
    "energy": lambda: product_spec(energy=0.5),
    "aligned": lambda: product_spec(align=True),
    "momentum": lambda: optimized("momentum"),
    "adam": lambda: optimized("adam"),
    "residual": lambda: product_spec("factors", residual_rank=2),
}


@pytest.fixture(params=list(SPECS))
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """Two sealed rounds of a run of three steps."""
    with serve(tmp_path / "aggregator", SPECS[request.param]()) as running:
        for _ in range(2):
            seal(running, tmp_path)
        yield running


def replayed(
    served: Served, events: list[chain.ChainEvent] | None = None, hidden: frozenset[Digest] = frozenset()
) -> Report:
    blobs = served.daemon.blobs
    return replay(
        events or served.registry.events, DOMAIN,
        lambda digest: blobs.path(digest) if blobs.has(digest) and digest not in hidden else None,
    )  # fmt: skip


def told(served: Served, number: int, adapter: bytes) -> list[chain.ChainEvent]:
    """The events of an aggregator that rolls another adapter, with a record that fits."""
    blobs = served.daemon.blobs
    digest = blobs.put(adapter)
    made = records.decode(blobs.get(served.daemon.view.rolls[number - 1].record_digest))
    record = blobs.put(records.encode(dataclasses.replace(made, adapter=digest)))
    return [
        dataclasses.replace(event, record_digest=record, adapter_digest=digest)
        if isinstance(event, chain.ChainRoundRolled) and event.round == number
        else event
        for event in served.registry.events
    ]


def adapter(served: Served, number: int) -> bytes:
    return served.daemon.blobs.get(served.daemon.view.rolls[number - 1].adapter_digest)


def altered(blob: bytes, tensor: str, change: Callable[[np.ndarray], None]) -> bytes:
    held = safetensors.numpy.load(blob)
    change(held[tensor])
    head = 8 + int.from_bytes(blob[:8], "little")
    names = sorted(held, key=str.encode)
    return blob[:head] + b"".join(held[name].tobytes() for name in names)


def test_replay__honest_run__is_certified_with_figures(served: Served) -> None:
    report = replayed(served)
    assert (report.verdict, report.findings, report.unchecked) == ("certified", [], [])
    assert any("2 of 2 adapters passed the certificate" in text for text in report.proved)
    lines = [json.loads(line) for line in (served.folder / "gaps.jsonl").read_text().splitlines()]
    for line, own in zip(report.rounds, lines, strict=True):
        assert line["certified"] is True and 0 < line["gap"] == pytest.approx(own["gap"], rel=1e-3)
        assert line["lost_energy"] == pytest.approx(own["lost_energy"], rel=1e-3)
    assert any("of its move away from the mean product" in line for line in served.lines)


@pytest.mark.parametrize("module", MODULES)
def test_replay__tampered_adapter__names_round_and_module(served: Served, module: str) -> None:
    def change(factor: np.ndarray) -> None:
        factor[3, -1] += 1.0

    blob = altered(adapter(served, 2), f"{module}.lora_B.weight", change)
    report = replayed(served, told(served, 2, blob))
    assert report.verdict == "fail"
    assert (2, module) in [(finding.round, finding.tensor) for finding in report.findings]
    assert {finding.tensor for finding in report.findings} <= {None, module}


def test_replay__factor_with_nan__names_round_and_module(served: Served) -> None:
    module = next(iter(MODULES))

    def change(factor: np.ndarray) -> None:
        factor[0, 0] = np.nan

    report = replayed(served, told(served, 2, altered(adapter(served, 2), f"{module}.lora_A.weight", change)))
    assert report.verdict == "fail"
    assert (2, module) in [(finding.round, finding.tensor) for finding in report.findings]


def test_replay__adapter_of_another_round__fails(served: Served) -> None:
    report = replayed(served, told(served, 2, adapter(served, 1)))
    assert report.verdict == "fail"
    assert set(MODULES) <= {finding.tensor for finding in report.findings if finding.round == 2}


def test_replay__another_file_under_the_digest__fails(served: Served) -> None:
    path = served.daemon.blobs.path(served.daemon.view.rolls[1].adapter_digest)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # too little for the certificate, and no match for the digest
    path.write_bytes(data)
    report = replayed(served)
    assert report.verdict == "fail"
    assert (2, "the published adapter's bytes differ from the digest on chain") in [
        (finding.round, finding.what) for finding in report.findings
    ]


def test_replay__file_that_is_no_adapter__is_told(served: Served) -> None:
    report = replayed(served, told(served, 2, adapter(served, 2)[:-4]))
    assert report.verdict == "fail"
    assert any("is no adapter of this run" in f.what or "not of this run's form" in f.what for f in report.findings)


def test_replay__adapter_cannot_be_seen__is_partial(served: Served) -> None:
    hidden = served.daemon.view.rolls[1].adapter_digest
    report = replayed(served, hidden=frozenset({hidden}))
    assert report.verdict == "partial"
    assert "round 2: its adapter or optimizer state cannot be seen, not certified" in report.unchecked


def test_replay__other_moments__fail(tmp_path: Path) -> None:
    with serve(tmp_path / "aggregator", optimized("momentum")) as served:
        for _ in range(2):
            seal(served, tmp_path)
        blobs, roll = served.daemon.blobs, served.daemon.view.rolls[1]
        made = records.decode(blobs.get(roll.record_digest))
        state = bytearray(blobs.get(made.optimizer_state))
        state[-8:] = np.float64(1.0).tobytes()
        for lie in (bytes(state), bytes(state[:-8]), bytes(state) + bytes(8), blobs.get(made.adapter)):
            record = blobs.put(records.encode(dataclasses.replace(made, optimizer_state=blobs.put(lie))))
            events = [
                dataclasses.replace(event, record_digest=record)
                if isinstance(event, chain.ChainRoundRolled) and event.round == 2
                else event
                for event in served.registry.events
            ]
            report = replayed(served, events)
            assert report.verdict == "fail"
            assert (2, "the published optimizer state is not what the admitted updates make") in [
                (finding.round, finding.what) for finding in report.findings
            ]
        none = blobs.put(records.encode(dataclasses.replace(made, optimizer_state=Digest(bytes(32)))))
        events = [
            dataclasses.replace(event, record_digest=none)
            if isinstance(event, chain.ChainRoundRolled) and event.round == 2
            else event
            for event in served.registry.events
        ]
        assert any("optimizer state" in finding.what for finding in replayed(served, events).findings)


def test_replay__mean_of_factors__is_exact_and_tells_its_gap(tmp_path: Path) -> None:
    with serve(tmp_path / "aggregator", product_spec("factors")) as served:
        seal(served, tmp_path)
        served.await_true(lambda: (served.folder / "gaps.jsonl").exists())
        line = json.loads((served.folder / "gaps.jsonl").read_text().splitlines()[0])
        report = replayed(served)
        assert report.verdict == "exact" and report.rounds[0]["gap"] == line["gap"] > 0
        assert any("of its move away from the mean product" in text for text in served.lines)
