"""Turns results.json into docs/benchmarks.md and docs/benchmarks.png, as `make bench` does last."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

from report_jobs import harvests, job_bars, jobs_were_measured, quartiles, table, whole_jobs

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
MIB = 2**20
ROWS = [
    (model, batch, seq)
    for model in ("6 x 128", "pocket-llama", "12 x 512")
    for batch in (1, 8)
    for seq in (16, 128, 512)
]
PAIRS = 30
PEERS = {  # how many times as long as the reader the tool takes at least, on the tiny model
    "nnsight": 1.2,
    "nnterp": 1.4,
    "pyvene": 1.15,
    "TransformerLens, stream": 2,
}
OTHERS = [*PEERS, "TransformerLens, all", "output_hidden_states", "article's hooks"]
READ, RECORD, CONTROL, LAST = (
    "read, all layers",
    "record, all layers",
    "bare again",
    "read, last token",
)


def row_name(model: str, batch: int, seq: int) -> str:
    return f"{model}, {batch} x {seq}"


def gaps(results: dict) -> str:
    """What this run leaves open: rows that were not measured, or that have too few pairs."""
    rows = results["rows"]
    missing = [name for name in (row_name(*row) for row in ROWS) if name not in rows]
    few = [name for name, row in rows.items() if row["pairs"] < PAIRS]
    told = [
        f"{what}: {'; '.join(names)}."
        for what, names in (("Cases not measured", missing), (f"Fewer than {PAIRS} pairs", few))
        if names
    ]
    return "\n\n".join(told) or f"All {len(ROWS)} cases were measured, with at least {PAIRS} pairs."


def spread(row: dict) -> float:
    low, _, high = quartiles(row["ratios"][CONTROL])
    return high - low


def middle(row: dict, tool: str) -> float:
    return median(row["ratios"][tool])


def bars(results: dict) -> list[tuple[str, bool, str]]:
    """Each promise, whether the measured rows keep it, and the numbers."""
    rows, memory = results["rows"], results["memory"]
    found = []

    def over(name: str, excess: dict[str, float]) -> None:
        worst = max(excess, key=excess.get)
        missed = [row for row in excess if excess[row] > 0]
        text = f"on {len(rows) - len(missed)} of {len(rows)} cases"
        if missed:
            text += f"; worst on {worst}, by {excess[worst]:.3f}; missed on: {'; '.join(missed)}"
        found.append((name, not missed, text))

    over(
        "`record_activations`, all layers: as fast as minimal hooks, within the control's spread",
        {
            name: middle(row, RECORD) - middle(row, "minimal hooks") - spread(row)
            for name, row in rows.items()
        },
    )
    over(
        "no other tool is faster than `read_activations` by more than the control's spread",
        {
            name: middle(row, READ) - min(middle(row, tool) for tool in OTHERS) - spread(row)
            for name, row in rows.items()
        },
    )
    tiny = {name: row for name, row in rows.items() if name.startswith("6 x 128")}
    for peer, factor in PEERS.items() if tiny else ():
        ahead = {name: middle(row, peer) / middle(row, READ) for name, row in tiny.items()}
        text = ", ".join(f"{name.split(', ')[1]}: {value:.2f}" for name, value in ahead.items())
        name = f"on the tiny model, `{peer}` takes at least {factor} times as long as ours"
        found.append((name, min(ahead.values()) >= factor, text))
    long = {n: r for n, r in rows.items() if n.startswith("12 x 512") and n.endswith("x 512")}
    for tool, most in ((READ, 0.98), ("read, first quarter", 0.27)):
        if not long:
            continue
        values = {name: middle(row, tool) for name, row in long.items()}
        text = ", ".join(f"{name.split(', ')[1]}: {value:.3f}" for name, value in values.items())
        name = f"{tool}, at 512 tokens on 12 x 512: at most {most} of the bare pass"
        found.append((name, max(values.values()) <= most, text))
    for tool, most in ((READ, 23), (LAST, 13)):
        value = memory[tool]["peak"] / MIB
        name = f"{tool}: peak above the weights at most {most} MiB"
        found.append((name, value <= most, f"{value:.1f} MiB"))
    for tool, tokens in ((READ, 512), (LAST, 1)):
        kept, wanted = memory[tool]["kept"], 13 * tokens * 512 * 4
        name = f"{tool}: the result takes layers x positions x hidden x bytes per number"
        found.append((name, kept == wanted, f"{kept:,} of {wanted:,}"))
    value = results["import_ms"]
    found.append(("importing `tutorial_utils`: at most 50 ms", value <= 50, f"{value:.1f} ms"))
    value = results["installed_bytes"] / 1e6
    name = "installed size without the shipped model: at most 2 MB"
    found.append((name, value <= 2, f"{value:.2f} MB"))
    return found


def times(results: dict) -> str:
    """One table for each model: tools down, inputs across."""
    text = []
    for model in dict.fromkeys(name.split(", ")[0] for name in results["rows"]):
        rows = {
            name.split(", ")[1]: row
            for name, row in results["rows"].items()
            if name.startswith(f"{model}, ")
        }
        lines = [
            ["bare pass, ms", *(f"{row['bare_ms']:.4g}" for row in rows.values())],
            ["pairs", *(str(row["pairs"]) for row in rows.values())],
        ]
        for tool in next(iter(rows.values()))["ratios"]:
            cells = []
            for row in rows.values():
                low, value, high = quartiles(row["ratios"][tool])
                cells.append(f"{value:.3f} ({low:.2f}–{high:.2f})")
            lines.append([tool, *cells])
        text += [f"### {model}", table(["batch x seq", *rows], lines)]
    return "\n\n".join(text)


def wins(results: dict) -> list[str]:
    """Where another tool was faster than the reader, and if by more than the control's spread."""
    lines = []
    for name, row in results["rows"].items():
        for tool in OTHERS:
            ahead = middle(row, READ) - middle(row, tool)
            if ahead > 0:
                told = "more" if ahead > spread(row) else "less"
                lines.append(
                    f"- {name}: {tool} is faster by {ahead:.3f} of a bare pass, {told} than the "
                    f"control's spread of {spread(row):.3f}"
                )
    return lines or ["Nowhere in this run."]


def page(results: dict) -> str:
    versions = {
        name: version for found in results["versions"].values() for name, version in found.items()
    }
    others = {found["transformers"] for found in results["versions"].values()}
    own = results["versions"]["ours"]["transformers"]
    promises = [*bars(results), *job_bars(results)]
    verdicts = [[name, "yes" if is_met else "**no**", text] for name, is_met, text in promises]
    memory = [
        [tool, f"{found['peak'] / MIB:.1f}", f"{found['kept'] / MIB:.2f}" if found["kept"] else ""]
        for tool, found in results["memory"].items()
    ]
    return "\n\n".join(
        [
            "# Benchmarks",
            "What it costs to read activations, with this package and with other tools.\n"
            "`make bench` makes this page and its figure from `bench/results.json`.",
            f"Measured on {results['machine']}, on {results['date']}. "
            + "Versions: "
            + ", ".join(f"{name} {version}" for name, version in versions.items())
            + (
                "; all tools used this version of transformers."
                if others == {own}
                else f"; transformers {', '.join(sorted(others))}, by environment."
            ),
            "Command: `make bench`. For some cases only: `python bench/run.py --rows '6 x 128'`.",
            "## How",
            (HERE / "method.md").read_text().strip(),
            "## What was promised",
            gaps(results),
            table(["promise", "kept", "measured"], verdicts),
            "## Where another tool is faster than `read_activations`, all layers",
            "Compared with all tools but our own and the minimal hooks.",
            "\n".join(wins(results)),
            "## Time, as a multiple of the bare forward pass",
            "Each cell gives the median of the ratios, and the quartiles in brackets.",
            f"![{described(results)}](benchmarks.png)",
            times(results),
            "## Whole jobs",
            jobs_were_measured(results),
            whole_jobs(results),
            "## The harvest, by one process and by two",
            harvests(results),
            "## Memory on 12 x 512, 1 x 512 tokens, in MiB",
            "Peak is the most memory in use at any time, without the weights. Kept is the memory\n"
            "that the result takes afterwards.",
            table(["tool", "peak", "kept"], memory),
        ]
    )


def described(results: dict) -> str:
    """What the figure shows, in words."""
    rows = results["rows"].values()
    ranges = []
    for tool in (READ, *PEERS):
        values = [middle(row, tool) for row in rows]
        ranges.append(f'"{tool}" {min(values):.2f} to {max(values):.2f}')
    return (
        f"Time as a multiple of the bare forward pass, over {len(rows)} cases: {'; '.join(ranges)}."
    )


def figure(results: dict) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(name.split(", ")[0] for name in results["rows"]))
    tools = list(next(iter(results["rows"].values()))["ratios"])[::-1]
    size = {"figsize": (3 + 3 * len(models), 5), "sharey": True, "layout": "constrained"}
    fig, axes = plt.subplots(1, len(models), squeeze=False, **size)
    axes = axes[0]
    colors = {"16": "#4477aa", "128": "#ee6677", "512": "#228833"}
    for ax, model in zip(axes, models):
        for name, row in results["rows"].items():
            if not name.startswith(f"{model}, "):
                continue
            batch, seq = name.split(", ")[1].split(" x ")
            values = [middle(row, tool) for tool in tools]
            marker = "o" if batch == "1" else "s"
            label = f"{batch} x {seq}"
            ax.plot(
                values, range(len(tools)), marker, color=colors[seq], ms=5, alpha=0.8, label=label
            )
        ax.axvline(1, color="0.6", lw=1, zorder=0)
        ax.set(xscale="log", title=model, xlabel="time / bare forward pass")
        ticks = [0.25, 0.5, 1, 2, 4, 8]
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.xaxis.set_minor_locator(plt.NullLocator())
        ax.grid(axis="y", color="0.92")
        ax.set_axisbelow(True)
    axes[0].set_yticks(range(len(tools)), tools)
    axes[-1].legend(title="batch x seq", fontsize=8, loc="upper right")
    fig.savefig(DOCS / "benchmarks.png", dpi=110)
    plt.close(fig)


def main() -> None:
    results = json.loads((HERE / "results.json").read_text())
    (DOCS / "benchmarks.md").write_text(page(results) + "\n")
    figure(results)
    for name, is_met, text in [*bars(results), *job_bars(results)]:
        print(f"{'met    ' if is_met else 'NOT MET'} {name}: {text}")


if __name__ == "__main__":
    main()
