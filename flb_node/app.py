# SPDX-License-Identifier: Apache-2.0
"""Composition root of the node: reads settings and key, builds every part once, runs the daemon.

torch is imported only when a model is needed, after the threads of this process are configured.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from flb import base_model, keystore
from flb.chain import membership_calls
from flb.chain.outbox import Outbox
from flb.chain.registry import Registry, call_view, find_deploy_block
from flb.chain.rpc import connect, is_local
from flb.chain.sender import Sender
from flb.config import Config, refuse_off_chain, require
from flb.config_file import load
from flb.delta import assert_ieee
from flb.errors import BadMessage, ConfigError
from flb.membership import NO_INVITE, Invite, Rules, Slot, invite_from_text
from flb.roster import RunView
from flb.spec import RunSpec
from flb.store import BlobStore, lock_folder
from flb.types import ZERO_ADDRESS, Address, Digest, Domain, Step
from flb_node import bounds, commitment, data, dataset_source, evaluation, packing, remote_code, tokens, usable
from flb_node.daemon import Daemon
from flb_node.entrance import Entrance
from flb_node.evaluation import Evaluation, HeldOut
from flb_node.local_privacy import LocalPrivacy
from flb_node.pipeline import Tensors, Train, node_rank
from flb_node.privacy_ledger import default_folder
from flb_node.progress import ERASE
from flb_node.status import StatusFile
from flb_node.threads import configure_threads
from flb_node.token_cache import TokenCache, tokenizer_digest

EXIT_SECONDS = 4.0
"""After SIGTERM; whatever is unfinished is lost, whatever is finished is on disk."""


class Stopped(Exception):
    """Training was asked to stop."""


@dataclass(slots=True)
class NodeChain:
    """The daemon's registry port on a real chain."""

    registry: Registry
    sender: Sender
    newest: Registry | None = None
    """The same run without confirmations, once it is known that it needs some."""

    def view(self) -> RunView:
        """What holds now."""
        return self.registry.poll()

    def head(self) -> RunView:
        """What the newest block says."""
        return (self.newest or self.registry).poll()

    def slot(self, node: Address) -> Slot:
        """What the contract holds of a node."""
        return membership_calls.read_slot(self.registry.rpc, self.registry.domain.run, node)

    def rules(self) -> Rules:
        """Admitter, end of the run, and time."""
        return membership_calls.read_rules(self.registry.rpc, self.registry.domain.run)

    def coins(self) -> int:
        """What this account holds, in wei."""
        return self.registry.rpc.quantity("eth_getBalance", "0x" + self.sender.address.hex(), "latest")

    def join(self, payee: Address, invite: Invite) -> None:
        """Become a member."""
        membership_calls.join(self.sender, payee, invite)

    def spec(self) -> Digest:
        """SHA-256 of the run spec."""
        return Digest(call_view(self.registry.rpc, self.registry.domain.run, "spec")[0])

    def confirm(self, blocks: int) -> None:
        """From now on believe only what lies under so many blocks."""
        if blocks:
            self.newest = Registry(self.registry.rpc, self.registry.domain, self.registry.deploy_block)
        self.registry.confirmations = blocks

    def register_dataset(self, node: Address, root: Digest, records: int) -> None:
        """Commit to the dataset."""
        membership_calls.register_dataset(self.sender, node, root, records)


def log(text: str) -> None:
    """One line with the time, on stderr; on a terminal it takes the place of the line of progress."""
    print(
        f"{ERASE if sys.stderr.isatty() else ''}{time.strftime('%H:%M:%S')} node: {text}", file=sys.stderr, flush=True
    )


def poll_seconds(rpc: str) -> float:
    """How often to read the chain: a local one can be asked all the time."""
    return 0.25 if is_local(rpc) else 4.0


def run(path: Path) -> int:
    """Run a node from a config file until its run is finished or it is told to stop. Raises FLBError."""
    config = load(path)
    refuse_off_chain(config)
    packing.check(config.training.packing, config.client.processes)
    stop, wake = threading.Event(), threading.Event()
    handle_signals(stop, wake)
    assert_ieee()
    source = dataset_source.of_config(config, path.parent)
    model = require(config.model.model_path, "model.model_path", "name the folder of the base model")
    run_of_config = run_address(config)
    examples, held_out = evaluation.read(config.client, data.read(source), source.columns)
    base_model.weight_files(model)
    configure_threads(config.client.threads, config.client.nodes_on_this_machine)
    folder = config.client.workdir
    lock = lock_folder(folder)
    key = open_key(config)
    ending = ExitStack()
    daemon = build(
        config, run_of_config, key, lambda: map(data.record_bytes, examples), folder, stop, wake, held_out,
        lambda spec, status, measured, own: make_trainer(config, spec, examples, status, stop, measured, ending, own),
        lambda spec: usable.check(config, spec, examples),
    )  # fmt: skip
    try:
        daemon.run()
    except Stopped:
        pass
    finally:
        daemon.disconnect()
        daemon.evaluation.close()
        ending.close()
        lock.close()
    log("stopped" if stop.is_set() else "done")
    return 0


def run_address(config: Config) -> Address:
    """The run's contract."""
    return Address(bytes.fromhex(require(config.chain.run, "chain.run", "ask the operator for it")[2:]))


def open_key(config: Config) -> bytes:
    """The node's private key from its keystore."""
    store = require(config.client.keystore, "client.keystore", "make one with flb account new")
    password = keystore.password_file(config.client.password_file)
    where = require(password, "client.password_file", "name a file with the keystore's password")
    if (role := keystore.stored_role(store)) not in (None, "node"):
        log(f"{store} was made for the role {role}, and acts as node here")
    return keystore.load(store, keystore.read_password(where))


def build(
    config: Config,
    run: Address,
    key: bytes,
    records: Callable[[], Iterable[bytes]],
    folder: Path,
    stop: threading.Event,
    wake: threading.Event,
    held_out: HeldOut,
    make_trainer: Callable[[RunSpec, StatusFile, Evaluation, LocalPrivacy], Train],
    check: Callable[[RunSpec], None],
) -> Daemon:
    """Every part, once. `records` is the dataset, as it is committed to; `check` raises where a run can't use it."""
    rpc = connect(config.chain.rpc)
    domain = Domain(rpc.chain_id(), run)
    registry = Registry(rpc, domain, find_deploy_block(rpc, run))
    sender = Sender(rpc, key, run, outbox=Outbox(folder / "outbox.sqlite"))
    secret = commitment.load_secret(folder)
    status = StatusFile(folder / "status.json", log)
    chain = NodeChain(registry, sender)
    node = address_in_config(config.client.node) or sender.address
    dataset = commitment.commit(node, records(), secret)
    entrance = Entrance(
        domain, node, key, chain, dataset, log, time.time, config.client.relay,
        address_in_config(config.client.payee) or ZERO_ADDRESS, read_invite(config),
    )  # fmt: skip
    blobs = BlobStore(folder / "blobs", sweep=True)
    ledgers = config.client.privacy_folder or default_folder()
    privacy = LocalPrivacy(run, folder, ledgers, records, log, status.kept.update)

    def fits(spec: RunSpec) -> None:
        privacy.admit(config.client, spec)
        check(spec)

    measured = Evaluation(folder, blobs, held_out, log, status.kept.update, run="0x" + run.hex())
    return Daemon(
        domain=domain, node=node, key=key, chain=chain, blobs=blobs, folder=folder, secret=secret, dataset=dataset,
        entrance=entrance, make_trainer=lambda spec: make_trainer(spec, status, measured, privacy), stop=stop, wake=wake,
        status=status, log=log, poll_seconds=poll_seconds(rpc.url), keep_steps=config.client.keep_steps, check=fits,
        rank=config.client.rank, evaluation=measured, privacy=privacy,
    )  # fmt: skip


def address_in_config(text: str | None) -> Address | None:
    """An address that the config's reader has checked."""
    return Address(bytes.fromhex(text[2:])) if text else None


def read_invite(config: Config) -> Invite:
    """The invite in the config. Raises ConfigError."""
    if config.client.invite is None:
        return NO_INVITE
    try:
        return invite_from_text(config.client.invite)
    except BadMessage as error:
        raise ConfigError(f"client.invite: {error.what}", error.remedy) from error


def make_trainer(
    config: Config,
    spec: RunSpec,
    examples: tuple[data.Example, ...],
    status: StatusFile,
    stop: threading.Event,
    measured: Evaluation | None,
    ending: ExitStack,
    privacy: LocalPrivacy | None = None,
) -> Train:
    """Check the base model, load it once, and return the function that trains a step; `ending` ends what it starts."""
    bounds.check(spec)
    packing.check(config.training.packing, config.client.processes, spec.training.objective)
    rank = node_rank(spec.lora, config.client.rank)
    path = require(config.model.model_path, "model.model_path", "name the folder of the base model")
    base_model.check(path, spec.base)
    tokens.check_context(path, spec.training.max_length)
    trusted = config.model.trust_remote_code
    runs_code = trusted is not None and remote_code.allowed(path, trusted.name, trusted.revision)
    from flb_node import dp_sgd, ranks, trainer
    from flb_node.watch import open_watch

    dp_sgd.check(spec, config.training, config.client.processes)
    watch = open_watch(config.client, spec, status, measured, log, run_address(config))
    started = time.monotonic()
    load_here = partial(
        trainer.load, path, spec.lora, spec.tensors, device_map=config.model.device_map, dtype=config.model.dtype,
        seed=spec.training.seed, bits=config.model.quantization, checkpointing=config.training.gradient_checkpointing,
        runs_code=runs_code, chat_template=config.dataset.chat_template,
        cache=TokenCache(config.client.workdir / "tokens", tokenizer_digest(path)), packing=config.training.packing, rank=rank,
    )  # fmt: skip
    if config.client.processes > 1:
        together = ranks.start(load_here, config.client.processes, spec.training, examples)
        ending.callback(together.close)
        local, train_step = together.local, together.train
    else:
        local = load_here()
        train_step = partial(local.train, examples)
    quantized = f" from {local.quantization} bits" if local.quantization else ""
    log(
        f"loaded the base model in {time.monotonic() - started:.1f} s, computing in {local.dtype}{quantized} on {local.device}"
    )

    local.prepare(examples, spec.training)  # data that this run can't use are told now, not in the first round
    watch.loaded(local.model, local.tokenizer, local.weights, local.tokens_a_row)

    def on_step(step: int, of: int, loss: float) -> None:
        watch.step(step, of, loss)
        if stop.is_set():
            raise Stopped

    kept = config.client.workdir / "optimizer" / run_address(config).hex()[:16]  # the next run may use this work folder

    def train(adapter: Tensors, names: frozenset[str], seed: int, step: Step) -> Tensors:
        watch.begin()
        secret = privacy.take() if privacy is not None else None
        trained = train_step(
            adapter, names, spec.training, seed, on_step, step=step - 1, steps=spec.rounds.steps, kept=kept, secret=secret
        )  # fmt: skip
        log(f"trained {len(trained.losses)} steps in {trained.seconds:.1f} s, loss {trained.losses[-1]:.4f}")
        return trained.adapter

    return train


def handle_signals(stop: threading.Event, wake: threading.Event) -> Callable[[int, FrameType | None], None]:
    """SIGTERM and SIGINT end the process within seconds, even in the middle of a long step."""

    def handler(number: int, frame: FrameType | None) -> None:
        stop.set()
        wake.set()
        timer = threading.Timer(EXIT_SECONDS, lambda: os._exit(0))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGINT, handler)
    return handler
