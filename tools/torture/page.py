"""docs/reliability.md, from the results of ``make torture``."""

from __future__ import annotations

from textwrap import fill

from mmcondetr.markdown import table
from tools.torture.attempts import OUTCOMES

WHAT = dict(
    annotations='mutated annotation files: other types, entries removed, cut, bits flipped, ids of nothing',
    images='damaged, odd, huge and foreign image files through the steps of training',
    corruptions='checkpoints with checksums: bits flipped, cut, zeroed, or with other content',
    payloads='code, configs, forged NumPy types and bombs in checkpoints, loaded in six ways',
    folders='folders from strangers: config.json, safetensors headers, paths in archives, links in work directories',
    resuming='training states that are damaged, foreign, or point to files elsewhere',
    settings='settings of wrong types, sizes and signs, each trained for an epoch',
    downloads='a server that sends HTML pages, lies about lengths, stops or never ends; several processes at once',
    nonfinite='NaN and infinity in weights, tested, trained from, resumed from and converted',
    kills='SIGKILL, SIGTERM and SIGINT at random moments, then resumed to the end of an uninterrupted run, bit for bit',
    disk='full disks, read-only ones, and files that may not grow',
    processes='two and four processes, one of which fails, is killed or stopped; two trainings in one folder',
    soak='training steps and predictions: memory within 1 %, no files left open or on disk',
)
NO_TRACEBACKS = ('annotations', 'corruptions', 'payloads', 'folders', 'resuming', 'downloads')
MOST_IN_SETTINGS = 0.05
WHOLE_RUN = 38
"""Minutes for all parts together, which run two at a time."""

INTRODUCTION = """# Reliability

How the package withstands attacks from outside: damaged and hostile files, nonsensical settings, servers that lie,
kills, full disks, many processes and long runs. `make torture` repeats them (40 minutes on two cores, seeded, Linux;
`python tools/torture.py --help` for a selection) and writes [reliability.json](reliability.json) and this page. Each
attempt is a separate process:

- *survived*: it worked, and the result was compared with the expected one
- *clear error*: one line that states the problem
- *traceback*: it failed without a clear message
- *silent*: it continued despite an error
- *crash*: the process was ended by a signal
- *hang*: it did not end in time
- *code run*: code from a file was executed
- *data lost*: something valid was destroyed
"""


def total(results: dict, outcome: str, *parts: str) -> int:
    """How often an outcome occurred, in these parts or in all."""
    return sum(part['counts'][outcome] for name, part in results['parts'].items() if not parts or name in parts)


def goals(results: dict) -> list[tuple[str, str, bool | None]]:
    """Goal, finding, and whether it is met: None if it is not judged, as parts that it is about were not run."""
    ran = results['parts']
    everything = set(WHAT) <= set(ran)
    extent = '' if everything else f' in {len(set(WHAT) & set(ran))} of {len(WHAT)} parts'
    found = []
    for outcome, what in (
        ('code run', 'code run from files: 0'),
        ('data lost', 'data lost: 0'),
        ('silent', 'wrong and silent: 0'),
        ('hang', 'hangs: 0'),
        ('crash', 'crashes: 0'),
    ):
        count = total(results, outcome)
        found.append((what, f'{count}{extent}', False if count else True if everything else None))
    for name in NO_TRACEBACKS:
        count = ran[name]['counts']['traceback'] if name in ran else None
        met = None if count is None else count == 0
        found.append((f'tracebacks in {name}: 0', 'not run' if count is None else str(count), met))
    if 'settings' in ran:
        share = ran['settings']['counts']['traceback'] / max(1, ran['settings']['tried'])
        found.append(('tracebacks in settings: < 5 %', f'{share:.1%}', share < MOST_IN_SETTINGS))
    else:
        found.append(('tracebacks in settings: < 5 %', 'not run', None))
    return found


def _extent(results: dict) -> list[str]:
    """How much was tried, under which load; and the limits of a run that was not a whole one."""
    parts = results['parts'].values()
    minutes, load, jobs = (
        max(part['environment'].get(name, 0) for part in parts) for name in ('minutes', 'load', 'jobs')
    )
    tried = sum(part['tried'] for part in parts)
    runs = {tuple(part['environment'].get(name) for name in ('commit', 'minutes', 'jobs')) for part in parts}
    if len(runs) > 1:
        work = sum(part['seconds'] for part in parts) / 60
        text = (
            f'{tried} attempts in {work:.0f} minutes of work (a whole run: {2 * WHOLE_RUN}), in {len(runs)} runs of '
            f'some of the parts each: see "On what". Load average of the machine up to {load:g}.'
        )
        return [fill(text, 120), '']
    text = (
        f'{"A whole run" if minutes >= WHOLE_RUN else "**A shortened run**"}: {tried} attempts in {minutes:g} of '
        f'{WHOLE_RUN} minutes, {jobs or 1} at a time; load average of the machine up to {load:g}.'
    )
    if minutes < WHOLE_RUN:
        text += (
            ' A goal that is met here was met in these attempts, which are too few to prove it; a soak of less than '
            '1000 steps proves nothing about memory.'
        )
    return [fill(text, 120), '']


def page(results: dict) -> str:
    """The whole page."""
    words = {True: 'yes', False: '**no**', None: 'not judged'}
    met = [(goal, found, words[reached]) for goal, found, reached in goals(results)]
    tried = [
        (f'{name}: {WHAT[name]}', part['seconds'], part['tried'], *(part['counts'][outcome] for outcome in OUTCOMES))
        for name, part in results['parts'].items()
    ]
    lines = [INTRODUCTION, *_extent(results), '## Goals', '', table(('goal', 'found', 'met'), met)]
    lines += ['', '## What was tried', '', table(('part', 'seconds', 'tried', *OUTCOMES), tried)]
    lines += ['', '## On what', '']
    for text, names in _environments(results).items():
        lines.append(fill(f'- {", ".join(names)}: {text}', 120, subsequent_indent='  '))
    for line in results['parts'].get('soak', {}).get('figures', ()):
        lines.append(f'- soak: {line}')
    skipped = {name: part['not_tried'] for name, part in results['parts'].items() if part.get('not_tried')}
    for name, count in skipped.items():
        lines.append(f'- {name}: {count} attempts need a file system that could not be mounted, and count as survived')
    wrong = {name: part['wrong'] for name, part in results['parts'].items() if part['wrong']}
    if wrong:
        lines += [
            '',
            '## What went wrong',
            '',
            'Each kind once, with an example: run it again with `--parts PART --attempt TEXT`.',
        ]
    lines += _kinds(wrong)
    before = {name: part['before'] for name, part in results['parts'].items() if part.get('before')}
    if before:
        lines += ['', '## What had gone wrong', '', 'Found by earlier runs, in parts that were repeated since.']
        for name, part in results['parts'].items():  # written by hand into the JSON
            lines += ['', fill(f'- {name}: {part["note"]}', 120, subsequent_indent='  ')] if part.get('note') else []
    return '\n'.join(lines + _kinds(before)) + '\n'


def _kinds(found: dict[str, list[dict]]) -> list[str]:
    """A table of each part's kinds of failures."""
    lines = []
    for name, kinds in found.items():
        rows = [
            (kind['outcome'], kind['times'], f'`{_cell(kind["example"])}`', f'`{_cell(kind["detail"])}`')
            for kind in kinds
        ]
        lines += ['', f'### {name}', '', table(('outcome', 'times', 'example', 'last line'), rows)]
    return lines


def _cell(text: str) -> str:
    return ' '.join(text.replace('|', '/').replace('`', "'").split())[:200] or ' '


def _environments(results: dict) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, part in results['parts'].items():
        about = part['environment']
        versions = ', '.join(f'{package} {version}' for package, version in about['versions'].items())
        text = (
            f'{about["date"]}, commit {(about["commit"] or "unknown")[:10]}, seed {about["seed"]}, {about["machine"]}, '
        )
        text += f'Python {about["python"]}, {versions}; a run of at most {about["minutes"]:g} minutes'
        text += f', {about.get("jobs", 1)} at a time'
        found.setdefault(text, []).append(name)
    return found
