"""The results as a short text, and the targets met or missed. Needs the results alone: no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MOST_CHARACTERS = 11_500
SIDES = ("published_fp32", "published_autocast", "published_half", "plain", "ours")
_KERNEL_ROWS, _LISTED = 34, 12


def dig(values: Any, *keys: Any) -> Any:
    """values[a][b]..., or None."""
    for key in keys:
        if not isinstance(values, dict) or key not in values:
            return None
        values = values[key]
    return values


# On an H100, with their reasons in kernels/NOTES.md. Milliseconds at batch 1: eager float32 by its launches, the
# compiled reference, ours.
_EAGER_MS, _COMPILED_MS, _OURS_MS = 8.5, 1.8, 0.64
_BUSY = 0.954  # benchmarks/results/pictures.json
_FIRST_WORD = 1.0  # warm_up has loaded, compiled and captured what it needs


def targets(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The goals for B/16 on one H100, each with what was predicted for this device, and its figure: met, missed, or
    not measured."""
    batches = dig(results, "end_to_end_base16", "batches") or {}
    one, large = (dig(batches, n) for n in ("1", "64"))
    compiled = dig(results, "compiled", "batches", "1")
    files = dig(results, "files", "base16")
    best = dig(one, "summary", "best_eager")
    return [
        _target(f"batch 1: times faster than the best eager way{f' ({best})' if best else ''}", "at least", 13,
                _EAGER_MS / _OURS_MS, dig(one, "summary", "best_eager_over_ours")),
        _target("batch 1: times faster than torch.compile, reduce-overhead", "at least", 4,
                _COMPILED_MS / _OURS_MS, dig(compiled, "summary", "compiled_over_ours")),
        _target("batch 1: times the image tower alone (device)", "at most", 1.5,
                dig(one, "predicted", "times_tower"), dig(one, "summary", "times_tower")),
        _target("batch 64: share of the measured matrix rate", "at least", 0.6,
                dig(large, "predicted", "rate_share"), dig(large, "summary", "rate_share")),
        _target("batch 64: share after the image tower", "at most", 0.12,
                dig(large, "predicted", "after_share"), dig(large, "summary", "after_share")),
        _target("files to words: share of the time that the device is busy", "at least", 0.9,
                _BUSY, dig(files, "device_busy")),
        _target("first word after warm_up, over the median", "at most", 1.2,
                _FIRST_WORD, dig(files, "first_word", "first_over_median")),
    ]  # fmt: skip


def _target(name: str, side: str, goal: float, predicted: float | None, figure: float | None) -> dict[str, Any]:
    state = "not measured"
    if figure is not None:
        state = "met" if (figure <= goal if side == "at most" else figure >= goal) else "missed"
    return {"name": name, "goal": f"{side} {goal:g}", "predicted": predicted, "figure": figure, "state": state}


def summary(results: dict[str, Any]) -> str:
    """The most important results, in at most 11,500 characters. Of a rehearsal without comparisons and targets, which
    tiny networks on a CPU neither meet nor miss."""
    real = not results.get("dry_run")
    parts = [
        _environment(results),
        "" if real else "a rehearsal with tiny networks on a CPU: its times say nothing of a GPU",
        *(
            _end_to_end(name, dig(results, f"end_to_end_{name}", "batches"), real)
            for name in ("base16", "small", "large")
        ),
        _compiled(dig(results, "compiled", "batches")),
        _files(results.get("files")),
        _timeline(results.get("timeline")),
        _kernels(results),
        _sweep(dig(results, "sweep", "cases") or [], real),
        *(_correctness(name, results.get(name)) for name in results.get("sections", {})),
        _listed("failed", results.get("failures", [])),
        _listed("left out", results.get("skipped", [])),
        _targets(results.get("targets", [])) if real else "",
    ]
    text = "\n\n".join(part for part in parts if part)
    half = MOST_CHARACTERS // 2
    return text if len(text) <= MOST_CHARACTERS else f"{text[: half - 10]}\n[...]\n{text[-half:]}"


def _environment(results: dict[str, Any]) -> str:
    e, c = results.get("environment", {}), results.get("ceilings", {})
    lines = [
        f"{e.get('name')}: {e.get('multiprocessors')} multiprocessors, driver {e.get('driver_version')}, "
        f"CUDA {e.get('cuda')}, torch {e.get('torch')}, triton {e.get('triton')}, clock {e.get('clocks.sm')}, "
        f"float32 products {e.get('float32_products')}, NVIDIA_TF32_OVERRIDE {e.get('tf32_override')}",
        f"ceilings: copy {_number(c.get('copy_gbs'))} GB/s; matrix product fp16 {_number(c.get('fp16_tflops'))}, "
        f"bf16 {_number(c.get('bf16_tflops'))}, fp32 {_number(c.get('fp32_tflops'))} TFLOP/s; a tiny kernel in a graph "
        f"{_number(c.get('launch_us'), 2)} us, launched by eager torch {_number(c.get('host_us'), 2)} us",
        f"{results.get('forced')}; {results.get('seconds')} s in all",
    ]
    return "\n".join(lines)


def _end_to_end(name: str, batches: dict[str, Any] | None, compared: bool) -> str:
    if not batches:
        return ""
    head = f"{name + ', us':<12}" + "".join(f"{s:>20}" for s in SIDES) + (
        f"{'device':>9}{'predicted':>10}{'x tower':>8}{'after':>7}{'rate':>6}{'launches':>16}"
    )  # fmt: skip
    lines = [head]
    for batch, values in sorted(batches.items(), key=lambda item: int(item[0])):
        sides, s = values.get("sides", {}), values.get("summary", {})
        cells = "".join(f"{_spread(sides.get(side)):>20}" for side in SIDES)
        device, predicted = dig(values, "device", "ours", "whole", "median"), dig(values, "predicted", "total_us")
        counts = values.get("launches", {})
        launches = f"{counts.get(s.get('best_eager'), '-')} > {counts.get('ours', '-')}"
        lines.append(
            f"batch {batch:<6}{cells}{_number(device):>9}{_number(predicted):>10}{_number(s.get('times_tower'), 2):>8}"
            f"{_percent(s.get('after_share')):>7}{_percent(s.get('rate_share')):>6}{launches:>16}"
        )
        faster = [f"{side} {s[f'{side}_over_ours']:.1f}x" for side in SIDES[:-1] if f"{side}_over_ours" in s]
        lines.append(f"{'':12}ours is faster: {', '.join(faster)}" if faster and compared else "")
    return "\n".join(line for line in lines if line)


def _compiled(batches: dict[str, Any] | None) -> str:
    lines = [
        f"torch.compile, base16 batch {batch}: {_spread(dig(values, 'sides', 'compiled'))} us, ours in turn "
        f"{_spread(dig(values, 'sides', 'ours'))} us ({values.get('compile_seconds')} s to compile)"
        for batch, values in (batches or {}).items()
    ]
    return "\n".join(lines)


def _kernels(results: dict[str, Any]) -> str:
    rows = [
        (operator, case)
        for section in ("cross_attention", "kernels")
        for operator, cases in results.get(section, {}).items()
        if isinstance(cases, list)
        for case in cases
    ]
    if not rows:
        return ""
    wanted = [row for row in rows if row[1]["name"].startswith("base16")] or rows
    heads = f"{'us':>8}{'warm':>8}{'GB/s':>7}{'TFLOP/s':>9}{'bound':>7}{'predicted':>10}{'torch':>8}"
    lines = [f"{'kernel, cold inputs':<46}{heads}", *(_kernel(*row) for row in wanted[:_KERNEL_ROWS])]
    return "\n".join(lines + ([f"{len(rows) - _KERNEL_ROWS} more in the results"] if len(rows) > _KERNEL_ROWS else []))


def _kernel(operator: str, case: dict[str, Any]) -> str:
    name = f"{operator}: {case['name']}{'' if case.get('cold_is_cold', True) else ' (warm)'}"
    return (
        f"{name:<46.46}{_number(case['cold']['median'], 1):>8}{_number(case['warm_us'], 1):>8}"
        f"{_number(case['gbs'], 0):>7}{_number(case['tflops'], 1):>9}{_percent(case['of_bound']):>7}"
        f"{_number(case['predicted_us'], 1):>10}{_number(case.get('torch_us'), 1):>8}"
    )


def _sweep(cases: Sequence[dict[str, Any]], compared: bool) -> str:
    if not compared:
        return f"sweep: {len(cases)} cases" if cases else ""
    better = [c for c in cases if c["best"] and c["best"]["us"] < 0.97 * c["shipped_us"]]
    if not cases:
        return ""
    lines = [f"sweep: {len(cases)} cases, {len(better)} with a configuration more than 3% better than the shipped one"]
    better.sort(key=lambda c: c["best"]["us"] / c["shipped_us"])
    lines += [
        f"  {c['operator']}: {c['name']}: {c['shipped_us']:.1f} -> {c['best']['us']:.1f} us, {c['best']['config']}"
        for c in better[:_LISTED]
    ]
    return "\n".join(lines)


def _correctness(name: str, found: Any) -> str:
    if not isinstance(found, dict) or "tests" not in found:
        return ""
    return f"{name}: {found['tests']} tests, {found['failed']} failed, {found['skipped']} skipped"


def _listed(title: str, items: Sequence[dict[str, Any]]) -> str:
    if not items:
        return f"{title}: nothing"
    lines = [f"{title}: {len(items)}"]
    lines += [f"  {item['section']}, {item['what']}: {item['why']}"[:200] for item in items[:_LISTED]]
    return "\n".join(lines + (["  ..."] if len(items) > _LISTED else []))


def _targets(found: Sequence[dict[str, Any]]) -> str:
    head = f"{'targets (B/16, one H100)':<66}{'target':>14}{'predicted':>11}{'measured':>10}"
    lines = [
        f"  {t['name']:<64.64}{t['goal']:>14}{_number(t['predicted'], 2):>11}{_number(t['figure'], 2):>10}  "
        + t["state"]
        for t in found
    ]
    return "\n".join([head, *lines])


def _files(found: dict[str, Any] | None) -> str:
    of = {"base16": "base16, random weights whose words end at once", "small": "small"}
    return "\n".join(_network(of[name], found[name]) for name in of if found and name in found)


def _network(of: str, found: dict[str, Any]) -> str:
    first = found.get("first_word", {})
    passes = ", ".join(f"{count:g} {kind}" for kind, count in found.get("passes_per_batch", {}).items()) or "-"
    return (
        f"files to words, {of}: {_number(found.get('images_per_second'), 0)} images a second, the device busy "
        f"{_percent(found.get('device_busy'))}, passes a batch: {passes}; first word "
        f"{_number(first.get('first_us'))} us after {_number(found.get('warm_up_seconds'), 1)} s of warm_up, "
        f"then {_spread(first.get('later'))}"
    )


def _timeline(found: dict[str, Any] | None) -> str:
    lines = []
    for name, values in (found or {}).items():
        if name.startswith("batch"):
            lines.append(
                f"{name}: {_number(values['span_us'])} us on the device, {_number(values['gaps_us'])} in gaps (longest "
                f"{_number(values['longest_gap_us'], 1)}), {values['launches']} launches; attention: "
                f"{', '.join(attention[:60] for attention in values['attention']) or 'unknown'}"
            )
            lines += [f"  {k['us']:>9.1f} us {k['count']:>4} x {k['name'][:90]}" for k in values["kernels"][:6]]
    if product := dig(found, "product"):
        sides = {name: values for name, values in product.items() if name != "shape"}
        each = ", ".join(f"{name} {_number(v['median'])} us ({v['tflops']} TFLOP/s)" for name, v in sides.items())
        lines.append(f"product {' x '.join(map(str, product['shape']))}, bias and QuickGELU: {each}")
    return "\n".join(lines)


def _spread(times: dict[str, float] | None) -> str:
    if not times:
        return "-"
    half = (times["quartile_3"] - times["quartile_1"]) / 2
    return f"{_number(times['median'])} ±{_number(half, 0)}"


def _number(value: float | None, digits: int | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.{(1 if value < 100 else 0) if digits is None else digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}%"
