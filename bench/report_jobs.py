"""What the page says of whole jobs and of the harvest."""

from __future__ import annotations

from statistics import median, quantiles

# The job, and how many times as long the fastest other tool is to take.
JOBS = {"patching": 5, "harvest": 2, "lens": 2}


def quartiles(values: list[float]) -> list[float]:
    return quantiles(values, n=4, method="inclusive")


def table(header: list[str], lines: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def job_bars(results: dict) -> list[tuple[str, bool, str]]:
    """What was promised of whole jobs, on the real model."""
    found = []
    for job, factor in JOBS.items():
        times = results.get("jobs", {}).get("smollm2", {}).get(job)
        if times:
            others = {tool: median(v) for tool, v in times.items() if tool != "ours, seconds"}
            best = min(others, key=others.get)
            name = f"{job} on SmolLM2: the fastest other tool takes at least {factor} times as long"
            found.append((name, others[best] >= factor, f"{best}, {others[best]:.2f}"))
    estimate = results.get("jobs", {}).get("smollm2", {}).get("estimate")
    if estimate:
        passes = 1 / median(estimate["bare pass"])
        name = "patching of all layers and tokens, estimated on SmolLM2: at most 5 bare passes"
        found.append((name, passes <= 5, f"{passes:.2f}"))
    ratios = {
        f"{model}, {layers}": median(b / a for a, b in zip(*(rate[of] for of in "12")))
        for model, cases in results.get("harvest", {}).items()
        for layers, case in cases.items()
        for rate in [case["tokens per second"]]
    }
    if ratios:
        name = "harvest: two processes on two cores at least 1.8 times one, without start-up"
        text = ", ".join(f"{case}: {ratio:.2f}" for case, ratio in ratios.items())
        found.append((name, min(ratios.values()) >= 1.8, text))
    return found


def whole_jobs(results: dict) -> str:
    """A table for each model: jobs down, tools across."""
    text = []
    for model, jobs in results.get("jobs", {}).items():
        tools = list(dict.fromkeys(tool for times in jobs.values() for tool in times))
        lines = []
        for job, times in jobs.items():
            cells = [
                ""
                if tool not in times
                else f"{median(times[tool]):.3g}"
                if len(times[tool]) < 2
                else "{1:.3g} ({0:.3g}–{2:.3g})".format(*quartiles(times[tool]))
                for tool in tools
            ]
            lines.append([job, str(len(times["ours, seconds"])), *cells])
        text += [f"### {model}", table(["job", "rounds", *tools], lines)]
    return "\n\n".join(text) or "Not measured yet."


def jobs_were_measured(results: dict) -> str:
    where = results.get("jobs_on", "the same machine and day")
    return (
        "Times as multiples of ours, median and in brackets quartiles of the rounds. Ours are\n"
        f"in seconds of processor time. Measured on {where}."
    )


def harvests(results: dict) -> str:
    """Rates of the harvest, and what they make of a million and a billion tokens."""
    rates, sizes = [], []
    for model, cases in results.get("harvest", {}).items():
        for layers, case in cases.items():
            one, two = (case["tokens per second"][of] for of in ("1", "2"))
            started = (case["tokens per second"][f"{of}, with start-up"] for of in "12")
            ratios = [b / a for a, b in zip(one, two)], [b / a for a, b in zip(*started)]
            written = case["bytes"] / case["tokens"]
            told = [f"{case['tokens']:,}", *(f"{median(rate):,.0f}" for rate in (one, two))]
            told += [f"{median(ratio):.2f}" for ratio in ratios]
            told.append(f"{median(two) * written / 1e6:.3g}")
            rates.append([f"{model}, {layers}", *told])
            cells = []
            for tokens in (1e6, 1e9):
                cells.append(f"{tokens * written / 1e9:,.4g}")
                cells += [f"{_hours(tokens / median(rate))}" for rate in (one, two)]
            sizes.append([f"{model}, {layers}", *cells])
    if not rates:
        return "Not measured yet."
    header = ["", "tokens", "tokens/s, one", "tokens/s, two", "two / one"]
    header += ["two / one, with start-up", "MB/s written, by two"]
    long = ["", "1 million: GB", "hours, one", "hours, two"]
    return "\n\n".join(
        [
            "Every token is kept, in float32. Medians of the rounds, by the clock. Each process\n"
            "has one thread, on a core of its own. Both ways write the same files, which are\n"
            "compared. Rates count from when the models are loaded until the last file is on disk.",
            table(header, rates),
            "At these rates, which count the writing, a million and a billion tokens take:",
            table([*long, *(name.replace("million", "billion") for name in long[1:])], sizes),
        ]
    )


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"
