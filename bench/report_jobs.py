"""What the page says about whole jobs and the harvest."""

from __future__ import annotations

from statistics import median, quantiles

# The job: how many times as long the fastest other tool takes at least.
JOBS = {"patching": 5, "harvest": 2, "lens": 2}


def quartiles(values: list[float]) -> list[float]:
    return quantiles(values, n=4, method="inclusive")


def table(header: list[str], lines: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def job_bars(results: dict) -> list[tuple[str, bool, str]]:
    """The promises about whole jobs, on the real model."""
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
        name = "estimate on SmolLM2: patching of all layers and tokens in at most 5 bare passes"
        found.append((name, passes <= 5, f"{passes:.2f}"))
    ratios = {
        f"{model}, {layers}": median(b / a for a, b in zip(*(rate[of] for of in "12")))
        for model, cases in results.get("harvest", {}).items()
        for layers, case in cases.items()
        for rate in [case["tokens per second"]]
    }
    if ratios:
        name = "harvest: two processes on two cores, at least 1.8 times as fast, without start-up"
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
        "Our times are in seconds of processor time, and the others are multiples of ours. Each\n"
        "cell gives the median of the rounds, and the quartiles in brackets. Measured on\n"
        f"{where}."
    )


def harvests(results: dict) -> str:
    """Rates of the harvest, and what a million and a billion tokens take at these rates."""
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
                cells.append(_short(tokens * written / 1e9, 4))
                cells += [_short(tokens / median(rate) / 3600, 2) for rate in (one, two)]
            sizes.append([f"{model}, {layers}", *cells])
    if not rates:
        return "Not measured yet."
    header = ["", "tokens", "tokens/s, one", "tokens/s, two", "two / one"]
    header += ["two / one, with start-up", "MB/s written, by two"]
    long = ["", "1 million: GB", "hours, one", "hours, two"]
    return "\n\n".join(
        [
            "All tokens are kept, in float32. Rates are medians of the rounds, in elapsed time.\n"
            "Each process has one thread and its own core. We check that both ways write the same\n"
            "files. Rates count from when the models are loaded until the last file is on disk.",
            table(header, rates),
            "At these rates, which include writing, a million and a billion tokens take:",
            table([*long, *(name.replace("million", "billion") for name in long[1:])], sizes),
        ]
    )


def _short(value: float, digits: int) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.{digits}g}"
