# SPDX-License-Identifier: Apache-2.0
"""Mode product from files: the dense answer in float32, any ranks and weights, threads, and memory."""

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb.admission import check_update
from flb.errors import CorruptStore, NotFinite, Refused, ValueTooLarge
from flb.lora import adapter_zero
from flb.lora.shape import A, B
from flb.spec import RunSpec
from flb.types import Step, TensorSpec
from flb_aggregator.encoded_step import Down
from flb_aggregator.files import Files
from flb_aggregator.module_stack import modules
from flb_aggregator.pipeline import Input, combine
from flb_aggregator.reweigh import reweigh
from tests.flb.lora.stacks import best
from tests.product_rounds import MODULES, Played, product_of, product_spec
from tests.sim import DOMAIN, manifest_for, opening, reader, update_bytes, write_blob

pytestmark = pytest.mark.unit

NEAR = 1e-6


@pytest.mark.parametrize("codec", ["f32", "bf16", "mxint8", "mxint4"])
def test_combine__first_round__is_the_best_product_in_float32(codec: str, tmp_path: Path) -> None:
    played = Played(product_spec(codec=codec), tmp_path)
    adapter = played.combined()
    for module in MODULES:
        wanted = best(played.ideal(module), 4)
        assert np.linalg.norm(product_of(adapter, module) - wanted) < NEAR * np.linalg.norm(wanted)


def test_combine__later_round__is_the_best_product_too(tmp_path: Path) -> None:
    first = Played(product_spec(), tmp_path / "first").combined()
    played = Played(product_spec(), tmp_path / "second", base=first)
    adapter = played.combined()
    for module in MODULES:
        wanted = best(played.ideal(module), 4)
        assert np.linalg.norm(product_of(adapter, module) - wanted) < NEAR * np.linalg.norm(wanted)
        held = safetensors.numpy.load(adapter)
        b, a = held[module + B].astype(np.float64), held[module + A].astype(np.float64)
        assert np.allclose(b.T @ b, a @ a.T, rtol=0, atol=1e-5), "balanced"
        assert (np.diff(np.diagonal(b.T @ b)) <= 0).all(), "in order"
        assert all(column[np.abs(column).argmax()] > 0 for column in b.T)


@pytest.mark.parametrize("ranks", [(1, 2, 4), (2, 2, 2), (4, 4, 1)])
def test_combine__ranks_differ__each_direction_is_the_mean_of_those_that_have_it(
    ranks: tuple[int, ...], tmp_path: Path
) -> None:
    spec = product_spec(ranks=(1, 2, 4))
    base = Played(product_spec(), tmp_path / "first").combined()
    played = Played(spec, tmp_path / "second", ranks=ranks, base=base)
    adapter = played.combined()
    for module in MODULES:
        b, a = played.before(module)
        top = max(ranks)
        wanted = best(played.ideal(module) + b[:, top:] @ a[top:], 4)
        assert np.linalg.norm(product_of(adapter, module) - wanted) < NEAR * np.linalg.norm(wanted)


def test_combine__weight_zero__is_not_even_read(tmp_path: Path) -> None:
    played = Played(product_spec(), tmp_path, weights=(3, 0, 2))
    adapter = played.combined()
    played.inputs[1].path.write_bytes(b"nothing")
    assert played.combined() == adapter


def test_combine__one_node__is_its_product(tmp_path: Path) -> None:
    played = Played(product_spec(), tmp_path, weights=(7,))
    adapter = played.combined()
    for module in MODULES:
        wanted = played.ideal(module)
        assert np.linalg.norm(product_of(adapter, module) - wanted) < NEAR * np.linalg.norm(wanted)


def test_combine__threads__give_the_same_bytes(tmp_path: Path) -> None:
    played = Played(product_spec(), tmp_path)
    assert played.combined(1) == played.combined(2) == played.combined(5)


def test_combine__energy__leaves_rows_of_adapter_zero(tmp_path: Path) -> None:
    played = Played(product_spec(energy=0.5), tmp_path)
    held = safetensors.numpy.load(played.combined())
    for tensor in played.spec.tensors[::2]:
        module = tensor.name.removesuffix(A)
        zero = np.concatenate(list(adapter_zero.blocks(tensor, 0))).reshape(tensor.shape)
        idle = ~held[module + B].any(axis=0)
        assert 0 < idle.sum() < 4 and np.array_equal(held[tensor.name][idle], zero[idle])


def test_combine__nothing_moved_and_adapter_zero__keeps_adapter_zero(tmp_path: Path) -> None:
    spec = product_spec()
    still = dataclasses.replace(spec, server_optimizer=dataclasses.replace(spec.server_optimizer, learning_rate=0.0))
    played = Played(still, tmp_path)
    assert played.combined() == played.base.read_bytes()


def test_combine__learning_rate__moves_so_far_in_product_space(tmp_path: Path) -> None:
    spec = product_spec()
    slow = dataclasses.replace(spec, server_optimizer=dataclasses.replace(spec.server_optimizer, learning_rate=0.25))
    first = Played(spec, tmp_path / "first").combined()
    played = Played(slow, tmp_path / "second", base=first)
    adapter = played.combined()
    for module in MODULES:
        b, a = played.before(module)
        wanted = best(b @ a + 0.25 * (played.ideal(module) - b @ a), 4)
        assert np.linalg.norm(product_of(adapter, module) - wanted) < NEAR * np.linalg.norm(wanted)


def test_combine__aligned__same_product_nearer_to_the_adapter_before(tmp_path: Path) -> None:
    first = Played(product_spec(), tmp_path / "first").combined()
    plain = Played(product_spec(), tmp_path / "plain", base=first).combined()
    turned = Played(product_spec(align=True), tmp_path / "turned", base=first).combined()
    before = safetensors.numpy.load(first)
    for module in MODULES:
        assert np.allclose(product_of(turned, module), product_of(plain, module), rtol=0, atol=1e-6)

        def away(adapter: bytes, module: str = module) -> float:
            held = safetensors.numpy.load(adapter)
            return float(sum(np.linalg.norm(held[module + f] - before[module + f]) ** 2 for f in (A, B)))

        assert away(turned) <= away(plain) + 1e-9


@pytest.mark.parametrize("rule", ["krum", "multi_krum", "geometric_median", "centered_clipping", "norm_bound"])
def test_combine__rule_that_weighs_whole_updates__moves_by_its_weights(rule: str, tmp_path: Path) -> None:
    spec = product_spec()
    robust = dataclasses.replace(spec.aggregation, rule=rule, byzantine=1, weights="equal")
    first = Played(spec, tmp_path / "first").combined()
    played = Played(dataclasses.replace(spec, aggregation=robust), tmp_path / "second", weights=(1,) * 7, base=first)
    adapter = played.combined()
    with Files([played.base, *(item.path for item in played.inputs)]) as files:
        counted = reweigh(played.spec, Step(1), played.weights, files, 1)
    for module in MODULES:
        b, a = played.before(module)
        wanted = b @ a
        for weight, update in zip(counted.weights, played.updates, strict=True):
            moved = (b + update[module + B]) @ (a + update[module + A]) - b @ a
            wanted = wanted + weight / counted.denominator * moved
        wanted = best(wanted, 4)
        assert np.linalg.norm(product_of(adapter, module) - wanted) < NEAR * np.linalg.norm(wanted)


def test_combine__rule_of_coordinates__is_refused(tmp_path: Path) -> None:
    spec = product_spec()
    median = dataclasses.replace(spec.aggregation, rule="median", weights="equal")
    with pytest.raises(Refused, match="median cannot compare the updates of mode product"):
        Played(dataclasses.replace(spec, aggregation=median), tmp_path).combined()


def with_optimizer(spec: RunSpec, **settings: object) -> RunSpec:
    return dataclasses.replace(spec, server_optimizer=dataclasses.replace(spec.server_optimizer, **settings))  # type: ignore[arg-type]


def test_combine__momentum_of_zero__is_the_aligned_adapter(tmp_path: Path) -> None:
    aligned = product_spec(align=True)
    first = Played(aligned, tmp_path / "first").combined()
    plain = Played(aligned, tmp_path / "plain", base=first).combined()
    still = with_optimizer(aligned, name="momentum", momentum=0.0)
    begun = Played(still, tmp_path / "begun").stepped(None, Step(1))
    moved = Played(still, tmp_path / "moved", base=first).stepped(begun[1], Step(2))
    assert begun[0] == first, "B was zero: the adapter is set"
    for module in MODULES:
        assert np.allclose(product_of(moved[0], module), product_of(plain, module), rtol=0, atol=1e-7)


def test_combine__momentum__carries_the_step_before_but_never_the_jump_from_adapter_zero(tmp_path: Path) -> None:
    spec = with_optimizer(product_spec(align=True), name="momentum", momentum=0.5)
    first, left = Played(spec, tmp_path / "first").stepped(None, Step(1))
    head = 8 + int.from_bytes(left[:8], "little")
    assert not any(left[head:]), "moments begin with the second step"
    second, left = Played(spec, tmp_path / "second", base=first).stepped(left, Step(2))
    moved = safetensors.numpy.load(second)
    moments = safetensors.numpy.load(left)
    for name, before in safetensors.numpy.load(first).items():
        assert np.allclose(moments[name][..., 0], moved[name].astype(np.float64) - before, rtol=0, atol=1e-7)
    played = Played(spec, tmp_path / "third", base=second)
    third = safetensors.numpy.load(played.stepped(left, Step(3))[0])
    target = safetensors.numpy.load(Played(product_spec(align=True), tmp_path / "target", base=second).combined())
    for name, wanted in target.items():
        assert np.allclose(third[name], wanted + 0.5 * moments[name][..., 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["nesterov", "adagrad", "adam", "yogi"])
def test_combine__every_optimizer__steps_from_its_moments_alike_in_any_threads(name: str, tmp_path: Path) -> None:
    spec = with_optimizer(product_spec(align=True), name=name, learning_rate=1e-3)
    first, left = Played(spec, tmp_path / "first").stepped(None, Step(1))
    played = Played(spec, tmp_path / "second", base=first)
    one, two = played.stepped(left, Step(2), threads=1), played.stepped(left, Step(2), threads=2)
    assert one == two and one[0] != first and one[1] != left


def test_combine__moments_without_alignment__are_refused(tmp_path: Path) -> None:
    played = Played(with_optimizer(product_spec(), name="momentum"), tmp_path)
    with pytest.raises(Refused, match="moments mean nothing"):
        played.combined()


def test_combine__encoded_step__is_refused(tmp_path: Path) -> None:
    played = Played(product_spec(), tmp_path)
    to = Down(DOMAIN.run, bytes(32), None, lambda data: None, lambda data: None)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="no encoded step"):
        combine(played.spec, Step(1), played.base, played.inputs, lambda data: None, to=to)


def test_combine__update_or_base_of_another_size__is_named(tmp_path: Path) -> None:
    played = Played(product_spec(), tmp_path)
    short = write_blob(tmp_path, played.inputs[0].path.read_bytes()[:-1])
    with pytest.raises(CorruptStore, match=f"{short.name} was altered"):
        combine(played.spec, Step(1), played.base, [Input(1, short)], lambda data: None)
    with pytest.raises(CorruptStore, match=f"{short.name} is no adapter"):
        combine(played.spec, Step(1), short, played.inputs, lambda data: None)


def test_modules__factor_without_its_other__is_refused() -> None:
    pair = product_spec().tensors[:2]
    assert [module.name for module in modules(pair)] == ["layers.0.down_proj"]
    for tensors in (pair[:1], pair[::-1], (pair[0], TensorSpec("x" + B, (3, 4)))):
        with pytest.raises(Refused, match="pairs of LoRA factors"):
            modules(tensors)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_admission__factor_that_is_not_finite_or_huge__never_gets_here(value: float) -> None:
    spec, opened = product_spec(), opening()
    member = opened.cohort[0]
    blob = bytearray(update_bytes(spec, opened.step, member, opened.base))
    blob[-4:] = np.float32(value).tobytes()
    manifest = manifest_for(spec, opened, member, bytes(blob))
    with pytest.raises((NotFinite, ValueTooLarge), match="layers.0.q_proj.lora_B.weight"):
        check_update(reader(bytes(blob)), manifest, spec, opened.step)


def test_combine__memory__holds_nothing_of_the_size_of_a_weight(tmp_path: Path) -> None:
    d, k, r = 3000, 2000, 2
    tensors = (TensorSpec("m" + A, (r, k)), TensorSpec("m" + B, (d, r)))
    played = Played(dataclasses.replace(product_spec(r=r), tensors=tensors), tmp_path)
    tracemalloc.start()
    combine(played.spec, Step(1), played.base, played.inputs, lambda data: None, threads=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < d * k, "not even a byte for each entry, where float32 takes four"


def test_combine__more_directions_than_product_space_takes__is_refused(tmp_path: Path) -> None:
    played = Played(product_spec(), tmp_path)
    with pytest.raises(Refused, match="4808 directions, product space takes 4096"):
        combine(played.spec, Step(1), played.base, played.inputs * 400 + played.inputs[:1], lambda data: None)
