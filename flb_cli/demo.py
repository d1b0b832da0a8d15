# SPDX-License-Identifier: Apache-2.0
"""`flb demo`: a real federation on this machine, from an empty folder to a verified adapter."""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from flb.errors import ConfigError
from flb_cli import demo_method

if TYPE_CHECKING:
    from flb_cli.demo_evaluator import Evaluator
    from flb_cli.demo_view import View
    from flb_cli.federation import Federation
    from flb_cli.replay import Report

PROMPTS = ["Tell me a joke.", "Do you feel emotions?", "What is your favourite food?"]
MAX_LENGTH = 128
POLL_SECONDS = 0.2


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    text = "fine-tune a real model on several nodes of this machine, and verify the result"
    parser = subparsers.add_parser("demo", help=text, description=text)
    parser.add_argument("--rounds", type=positive, default=3, help="rounds to seal (default: 3)")
    parser.add_argument("--nodes", type=positive, default=3, help="node processes (default: 3)")
    parser.add_argument("--steps", type=positive, default=10, help="local optimizer steps a round (default: 10)")
    demo_method.add_options(parser)
    parser.add_argument("--workdir", type=Path, help="folder of the run, new or empty (default: flb-demo/TIME)")
    parser.add_argument("--kill", action="store_true", help="kill the aggregator in the middle of an upload")
    parser.add_argument("--tamper", action="store_true", help="flip one bit of an update afterwards; it must be found")
    parser.add_argument("--keep", action="store_true", help="leave chain and aggregator running until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout; progress on stderr")
    parser.set_defaults(run=run)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("give at least 1")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and report; every process is gone afterwards."""
    from flb_cli.demo_view import View, make_console

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    if arguments.tamper and arguments.privacy.startswith("central-"):
        raise ConfigError("--tamper alters an update, and under central privacy nobody may see one", "leave it out")
    demo = Demo(arguments, new_folder(arguments.workdir), View(make_console(arguments.json), ()))
    result = demo.run()
    return 0 if succeeded(arguments, result) else 1


def succeeded(arguments: argparse.Namespace, result: dict[str, Any]) -> bool:
    """Whether the run verifies, and whatever trouble was asked for came and was overcome."""
    good = ("exact", "certified")
    killed, tampered = result.get("kill"), result.get("tamper")
    return bool(
        result["verify"] in good
        and (not arguments.kill or (killed and killed["went_on"]))
        and (not arguments.tamper or (tampered and tampered["named"] and tampered["restored"] in good))
    )


def report(demo: "Demo", result: dict[str, Any]) -> None:
    """The result: JSON on stdout, or a summary for people."""
    from flb_cli.demo_view import summary

    if demo.arguments.json:
        print(json.dumps({key: value for key, value in result.items() if key not in ("nodes", "workdir")}), flush=True)
    else:
        summary(demo.view.console, result, demo.view, demo.answers)


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does."""
    raise KeyboardInterrupt


def new_folder(wanted: Path | None) -> Path:
    """The run's folder. Raises ConfigError for one that is in use."""
    folder = wanted or Path("flb-demo") / time.strftime("%Y%m%d-%H%M%S")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"--workdir {folder} is not empty", "name a new folder")
    return folder.absolute()


@dataclass(slots=True)
class Demo:
    """One demo from its arguments to its result."""

    arguments: argparse.Namespace
    folder: Path
    view: "View"
    started: float = field(default_factory=time.monotonic)
    answers: list[tuple[str, str, str]] = field(default_factory=list)
    asked: int = 0

    def run(self) -> dict[str, Any]:
        """Set up, train, judge, verify."""
        from flb_cli import demo_corpus, demo_payout
        from flb_cli.cache import cache_folder
        from flb_cli.demo_evaluator import Evaluator
        from flb_cli.demo_prepare import prepare
        from flb_cli.federation import Federation

        cache = cache_folder()
        base, dtype = prepare(cache, self.view.say)
        self.started = self.view.started = time.monotonic()
        data = self.folder / "data"
        split = demo_corpus.write(data, self.arguments.nodes)
        self.view.topics = [part.topics for part in split.parts]
        datasets = [data / f"node-{index + 1}.jsonl" for index in range(self.arguments.nodes)]
        with Federation(
            self.folder, base, datasets, self.settings(), cache, self.view.say, dtype=dtype,
            test_token=demo_payout.PER_ROUND * self.arguments.rounds,
        ) as federation:  # fmt: skip
            evaluator = Evaluator(federation, base, data / demo_corpus.HELD_OUT, MAX_LENGTH)
            with self.view.showing():
                result = self.federate(federation, evaluator)
            report(self, result)
            if self.arguments.keep:
                self.keep(federation)
        return result

    def settings(self) -> dict[str, Any]:
        """The parts of config.yaml that differ from the defaults."""
        from flb_cli import demo_payout, privacy_report

        a = self.arguments
        return {
            **privacy_report.settings(a.privacy, a.nodes),
            "lora": demo_method.lora(a),
            "training": {"local_steps": a.steps, "max_length": MAX_LENGTH},
            "run": {
                "steps": a.rounds,
                **demo_method.run(a),
                "codec": a.codec,
                **privacy_report.run_settings(a.privacy),
                "payout": demo_payout.settings(),
            },
        }

    def federate(self, federation: "Federation", evaluator: "Evaluator") -> dict[str, Any]:
        """From the first process to the verdict, through the trouble that was asked for."""
        from flb_cli import demo_payout, privacy_report
        from flb_cli.demo_trouble import Ambush, tamper

        federation.start_chain()
        federation.deploy()
        for name in ("aggregator", *(f"node-{index + 1}" for index in range(self.arguments.nodes))):
            federation.spawn(name)
        evaluator.start()
        evaluator.ask(0, None, PROMPTS)
        federation.await_members()
        ambush = Ambush(federation, self.view.say) if self.arguments.kill else None
        if ambush:
            ambush.start()
        assert federation.owner is not None
        federation.owner.start()
        self.view.say("training")
        while not self.watch(federation, evaluator):
            if ambush:
                ambush.strike()
            time.sleep(POLL_SECONDS)
        trouble: dict[str, Any] = {}
        if ambush:
            killed = ambush.end()
            trouble["kill"] = asdict(killed) if killed else None
        self.view.say("waiting for the nodes to fetch the last adapter")
        for name, child in federation.children.items():
            if name.startswith("node-"):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(60)
        self.view.say("judging the last adapter")
        while evaluator.failure is None and self.arguments.rounds not in evaluator.losses:
            self.watch(federation, evaluator)
            time.sleep(POLL_SECONDS)
        evaluator.finish()
        self.watch(federation, evaluator)
        self.view.say("paying")
        payout = demo_payout.pay(federation, "node-1")
        federation.write_events()
        self.view.say("verifying")
        verdict = self.verify().verdict
        if self.arguments.tamper:
            self.view.say("flipping one bit of an update, verifying, putting it back, verifying")
            trouble["tamper"] = tamper(self.folder, self.verify)
        last = evaluator.answers[self.arguments.rounds]
        self.answers = list(zip(PROMPTS, evaluator.answers[0], last, strict=True))
        privacy = privacy_report.result(federation.folder / "aggregator", self.arguments.nodes, self.arguments.rounds)
        return {**self.result(federation, evaluator, verdict), "payout": payout, "privacy": privacy, **trouble}

    def watch(self, federation: "Federation", evaluator: "Evaluator") -> bool:
        """Look around once; True when the run is finished."""
        from flb_aggregator.publish import adapter_folder
        from flb_cli.demo_view import read_status

        federation.check()
        chain = federation.view()
        while self.asked < len(chain.rolls):
            self.asked += 1
            last = self.asked == self.arguments.rounds
            folder = adapter_folder(federation.folder / "aggregator" / "adapters", self.asked)  # type: ignore[arg-type]
            evaluator.ask(self.asked, folder, PROMPTS if last else [])
        states = [
            read_status(federation.folder / f"node-{index + 1}" / "status.json")
            for index in range(self.arguments.nodes)
        ]
        self.view.update(states, self.lines(federation), evaluator.losses)
        return chain.finished

    def lines(self, federation: "Federation") -> list[dict[str, Any]]:
        """What the aggregator wrote about sealed rounds."""
        path = federation.folder / "aggregator" / "rounds.jsonl"
        text = path.read_text() if path.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.endswith("}")]

    def verify(self) -> "Report":
        """The report on this folder, by the code of `flb verify`."""
        from flb_cli.replay import replay
        from flb_cli.verify import from_folder

        material = from_folder(self.folder, None, False)
        report = replay(material.events, material.domain, material.fetch)
        for finding in report.findings:
            print(f"flb verify: {finding}", file=sys.stderr)
        return report

    def result(self, federation: "Federation", evaluator: "Evaluator", verdict: str) -> dict[str, Any]:
        """The JSON of the demo."""
        from flb_aggregator.publish import adapter_folder

        assert federation.registry is not None and federation.chain is not None
        rolls = {rolled.round: rolled for rolled in federation.registry.view.rolls}
        lines = self.lines(federation)
        processes = {"chain": federation.chain.process.pid}
        processes |= {name: child.process.pid for name, child in federation.children.items()}
        return {
            "run": "0x" + federation.registry.domain.run.hex(),
            "chain_id": federation.registry.domain.chain_id,
            "base_eval_loss": evaluator.losses[0],
            "final_eval_loss": evaluator.losses[self.arguments.rounds],
            "adapter_dir": str(adapter_folder(federation.folder / "aggregator" / "adapters", len(rolls))),  # type: ignore[arg-type]
            "verify": verdict,
            "processes": processes,
            "aggregator_peak_rss_mib": max(line["peak_rss_mib"] for line in lines),
            "wall_s": round(time.monotonic() - self.started, 1),
            "rounds": [
                {
                    "round": line["round"],
                    "nodes": len(line["nodes"]),
                    "eval_loss": evaluator.losses[line["step"]],
                    "bytes_up": line["bytes_up"],
                    "bytes_down": line["bytes_down"],
                    "wall_s": line["wall_s"],
                    "aggregate_s": line["aggregate_s"],
                    "adapter_sha256": rolls[line["round"]].adapter_digest.hex(),
                    "tx": line["tx"],
                    "gas_used": line["gas_used"],
                }
                for line in lines
            ],
            "nodes": ["0x" + node.hex() for node in federation.registry.view.members],
            "workdir": str(self.folder),
        }

    def keep(self, federation: "Federation") -> None:
        """Leave chain and aggregator running until Ctrl-C."""
        assert federation.chain is not None and federation.registry is not None
        uri = federation.registry.view.uri
        address = "0x" + federation.registry.domain.run.hex()
        print(
            f"chain {federation.chain.url}, aggregator {uri}; try: flb verify {address} --rpc {federation.chain.url}\n"
            "Ctrl-C ends them",
            file=sys.stderr,
        )
        try:
            while True:
                federation.check()
                time.sleep(1)
        except KeyboardInterrupt:
            return
