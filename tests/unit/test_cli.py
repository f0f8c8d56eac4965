"""Configs found by name, options applied, and errors as one line."""

import errno
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from torch.utils.data import DataLoader
from toy_runner import make_runner

from mmcondetr import cli as cli_package
from mmcondetr.cli import common as cli
from mmcondetr.cli import train
from mmcondetr.compat.config_scope import config_root
from mmcondetr.compat.mmcv_stand_in import MissingMMCVOpError
from mmcondetr.engine import testing
from mmcondetr.engine.coco_panoptic_metric import CocoPanopticMetric, measures_panoptic
from mmcondetr.engine.config import apply_training_options, find_config, load_config
from mmcondetr.errors import Stopped, UserError

NAME = 'conditional-detr_r50_8xb2-50e_coco'


def arguments(**changes) -> Namespace:
    given = dict(config=NAME, launcher='none', cfg_options=None, work_dir=None)
    return Namespace(**{**given, **dict(amp=False, amp_dtype=None, auto_scale_lr=False, resume=None), **changes})


def arguments_of_test(**changes) -> Namespace:
    given = dict(checkpoint='a.pth', batch_size=None, out=None, show=False, show_dir=None, wait_time=2, tta=False)
    return Namespace(
        **{**given, **dict(optimize=None, compile=False, runtime=None, runtime_precision='fp32'), **changes}
    )


@pytest.mark.parametrize('name', [NAME, f'{NAME}.py', f'conditional_detr/{NAME}.py', f'conditional_detr/{NAME}'])
def test_a_config_is_found_by_name(name):
    assert find_config(name) == str(config_root() / 'conditional_detr' / f'{NAME}.py')


def test_a_path_is_taken_as_it_is(tmp_path):
    path = tmp_path / f'{NAME}.py'
    path.write_text('a = 1\n')
    assert find_config(str(path)) == str(path)


def test_an_unknown_name_is_answered_with_what_comes_close():
    with pytest.raises(UserError, match=f"'conditional-detr_r50_8xb2-50e'.*Did you mean .*{NAME}.py"):
        find_config('conditional-detr_r50_8xb2-50e')


def test_a_missing_path_is_not_taken_for_a_config_of_ours_with_the_same_name(tmp_path):
    with pytest.raises(UserError, match='neither a file nor the name'):
        find_config(str(tmp_path / f'{NAME}.py'))


@pytest.mark.parametrize(
    'text, message',
    [
        ('a = (\n', 'not valid Python'),
        ("_base_ = './gone.py'\n", 'does not exist.*gone'),
        ("root = '{{$MMCONDETR_UNSET_IN_TESTS:}}'\n", 'cannot be read: KeyError: `MMCONDETR_UNSET_IN_TESTS` cannot be'),
        ('a = missing\n', "cannot be read: NameError: name 'missing' is not defined .MMCONDETR_TRACEBACK=1"),
        ("_base_ = './broken.py'\n", 'cannot be read: RecursionError'),
    ],
)
def test_a_config_that_cannot_be_read_is_named(tmp_path, text, message):
    path = tmp_path / 'broken.py'
    path.write_text(text)
    with pytest.raises(UserError, match=rf'broken\.py.*{message}'):
        load_config(arguments(config=str(path)))


def test_the_work_directory_comes_from_the_flag_or_from_the_name(tmp_path):
    assert load_config(arguments()).work_dir == f'work_dirs/{NAME}'
    assert load_config(arguments(work_dir='here')).work_dir == 'here'


def test_options_of_the_command_line_win(tmp_path):
    checkpoint = tmp_path / 'some.pth'
    checkpoint.touch()
    config = load_config(arguments(cfg_options={'train_dataloader.batch_size': 3}))
    assert config.train_dataloader.batch_size == 3
    apply_training_options(config, arguments(auto_scale_lr=True, resume=str(checkpoint)))
    assert config.auto_scale_lr.enable is True
    assert (config.resume, config.load_from) == (True, str(checkpoint))
    assert config.model.backbone.init_cfg is None  # the checkpoint has the backbone's weights: no others are fetched


@pytest.mark.parametrize(
    'gpu, dtype, expected',
    [
        (True, None, dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic')),
        (True, 'bf16', dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic')),
        (False, None, dict(type='mmcondetr.CPUAmpOptimWrapper')),
        (False, 'bf16', dict(type='mmcondetr.CPUAmpOptimWrapper')),
    ],
)
def test_amp_on_a_gpu_and_on_a_cpu(gpu, dtype, expected, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: gpu)
    config = load_config(arguments())
    plain = config.optim_wrapper.to_dict()
    apply_training_options(config, arguments(amp=True, amp_dtype=dtype))
    assert config.optim_wrapper.to_dict() == {**plain, **expected}


def test_fp16_on_a_cpu_is_refused(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(UserError, match='--amp-dtype fp16: .* needs a GPU'):
        apply_training_options(load_config(arguments()), arguments(amp=True, amp_dtype='fp16'))


def test_resume_without_a_value_looks_for_the_last_checkpoint(tmp_path, capsys):
    start = tmp_path / 'start.pth'
    start.touch()
    config = Config(dict(load_from=str(start), work_dir=str(tmp_path / 'run')))
    apply_training_options(config, arguments(resume='auto'))
    assert (config.resume, config.load_from) == (False, str(start))
    assert f'nothing to resume in {tmp_path / "run"} yet; starting from {start}' in capsys.readouterr().out
    (tmp_path / 'run').mkdir()
    last = tmp_path / 'run' / 'epoch_3.pth'
    last.touch()
    (tmp_path / 'run' / 'last_checkpoint').write_text(str(last))
    apply_training_options(config, arguments(resume='auto'))
    assert (config.resume, config.load_from) == (True, str(last))


def test_a_start_that_is_not_there_is_found_before_anything_is_built(tmp_path):
    with pytest.raises(UserError, match=r"load_from: checkpoint '\S*gone.pth' does not exist"):
        apply_training_options(Config(dict(load_from=str(tmp_path / 'gone.pth'))), arguments())


def test_scaling_the_rate_needs_to_know_for_which_batch_it_is():
    with pytest.raises(UserError, match='auto_scale_lr.base_batch_size'):
        apply_training_options(Config(dict()), arguments(auto_scale_lr=True))


def test_flags_of_the_test_tool_reach_the_config():
    config = load_config(arguments())
    given = arguments_of_test(out='a.pkl', show_dir='drawn', tta=True)
    steps = list(config.test_dataloader.dataset.pipeline)
    testing.apply_testing_options(config, given)
    assert config.load_from == 'a.pth'
    assert (config.default_hooks.visualization.draw, config.default_hooks.visualization.test_out_dir) == (True, 'drawn')
    assert (config.model.type, config.model.module.type) == ('mmdet.DetTTAModel', 'mmcondetr.ConditionalDETR')
    assert config.test_dataloader.dataset.pipeline[:-1] == steps[:-1]
    assert config.test_dataloader.dataset.pipeline[-1].type == 'TestTimeAug'


def test_batches_of_one_shape_are_a_flag_away():
    config = load_config(arguments())
    testing.apply_testing_options(config, arguments_of_test(batch_size=4))
    loader = config.test_dataloader
    assert (loader.batch_size, loader.batch_sampler.type) == (4, 'mmcondetr.SameShapeBatchSampler')
    with pytest.raises(UserError, match='--batch-size must be at least 1, got 0'):
        testing.apply_testing_options(config, arguments_of_test(batch_size=0))


def test_weights_are_averaged_in_training_only():
    """Else testing would copy the model, and put the copy's weights into one that was optimised meanwhile."""
    config = Config.fromfile(find_config('conditional-detr_r18_small_1xb4-24e_shapes'))
    config.default_hooks.averages = dict(type='EMAHook')
    config.custom_hooks.append(dict(type='mmcondetr.CheckClassesHook'))
    others = [name for name in config.default_hooks if name != 'averages']
    testing.apply_testing_options(config, arguments_of_test())
    assert [hook.type for hook in config.custom_hooks] == ['mmcondetr.CheckClassesHook']
    assert list(config.default_hooks) == others


def test_a_missing_start_names_the_recipe_that_writes_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = load_config(arguments(config='conditional-detr_r18_small-panoptic_1xb8-12e_shapes'))
    recipe = Path(config.load_from).parent.name
    message = rf"load_from: checkpoint 'work_dirs/\S+' .* written by 'mmcondetr train {recipe}': run this first"
    with pytest.raises(UserError, match=message) as raised:
        apply_training_options(config, arguments())
    assert len(str(raised.value).splitlines()) == 1
    last = load_config(arguments(config=recipe))
    assert Path(config.load_from).name == f'epoch_{last.train_cfg.max_epochs}.pth', 'the last one that it writes'


def test_a_frozen_detector_is_not_trained_from_nothing():
    config = load_config(arguments(config='dab-detr_r50_masks-frozen_8xb2-25e_coco'))
    with pytest.raises(
        UserError, match='load_from: config .* masks of a frozen detector .* pass --cfg-options load_from'
    ):
        apply_training_options(config, arguments())


def test_a_start_beside_the_configs_is_named_without_dots():
    start = load_config(arguments(config='conditional-detr_r18_small-masks-frozen_1xb16-20e_shapes')).load_from
    assert os.path.isfile(start) and '..' not in start


@pytest.mark.parametrize(
    ('evaluators', 'expected'),
    [
        (None, False),
        (dict(type='mmcondetr.CocoMetric'), False),
        (dict(type='mmdet.CocoMetric'), False),
        (dict(type='mmcondetr.CocoPanopticMetric'), True),
        (dict(type=CocoPanopticMetric), True),
        ([dict(type='mmcondetr.CocoMetric'), dict(type='CocoPanopticMetric')], True),
    ],
)
def test_evaluators_that_need_panoptic_maps(evaluators, expected):
    assert measures_panoptic(evaluators) is expected


def test_an_exported_file_is_not_asked_for_a_panoptic_map():
    config = load_config(arguments())
    config.test_evaluator = [config.test_evaluator, dict(type='mmcondetr.CocoPanopticMetric')]
    with pytest.raises(UserError, match='--runtime: test_evaluator measures panoptic quality'):
        testing.apply_testing_options(config, arguments_of_test(checkpoint='a.onnx', runtime='onnx'))


def test_predictions_go_into_a_pickle_file_only():
    with pytest.raises(UserError, match=r"--out 'a\.json'"):
        testing.apply_testing_options(Config(dict()), arguments_of_test(out='a.json'))


def test_showing_needs_a_hook_that_shows():
    with pytest.raises(UserError, match=r'default_hooks\.visualization'):
        testing.apply_testing_options(Config(ConfigDict()), arguments_of_test(show=True))


def failing(error: BaseException):
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize('error', [UserError('the file is gone'), MissingMMCVOpError('the file is gone')])
def test_a_user_fixable_error_is_one_line(capsys, error):
    assert cli.run_guarded(failing(error)) == cli.USER_ERROR
    assert capsys.readouterr().err == 'error: the file is gone\n'


def test_a_warning_is_one_line_without_the_code_that_was_running(monkeypatch):
    shown = []

    def run():
        for category in (UserWarning, DeprecationWarning):
            shown.append(warnings.formatwarning(category('boxes\x1b[2J'), category, 'base_det_dataset.py', 76))

    monkeypatch.delenv(cli.TRACEBACK, raising=False)
    before = warnings.formatwarning
    assert cli.run_guarded(run) == 0 and warnings.formatwarning is before
    assert shown[0] == 'warning: boxes\\x1b[2J\n' and 'base_det_dataset.py:76' in shown[1]
    monkeypatch.setenv(cli.TRACEBACK, '1')
    cli.run_guarded(run)
    assert 'base_det_dataset.py:76' in shown[2]


def test_an_error_from_a_loaders_worker_loses_its_traceback(capsys):
    sent = UserError(
        'Caught UserError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n'
        '  File "x.py", line 1\nmmcondetr.errors.UserError: the image is gone\n'
    )
    assert cli.run_guarded(failing(sent)) == cli.USER_ERROR
    assert capsys.readouterr().err == 'error: the image is gone\n'


class Fatal(torch.utils.data.Dataset):
    """Its second entry kills the process that loads it, as the system does where memory is short."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        if index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return index


@pytest.mark.skipif(os.name != 'posix', reason='about signals')
@pytest.mark.parametrize('persistent', [True, False])
def test_a_loaders_worker_that_was_killed(capsys, persistent):
    loader = DataLoader(Fatal(), num_workers=1, persistent_workers=persistent)
    assert cli.run_guarded(lambda: list(loader), '--resume') == cli.USER_ERROR
    said = capsys.readouterr().err
    assert re.fullmatch(
        r'error: a process that loads images has ended \(.*\)\. If memory .* --resume continues.*\n', said
    )


def test_an_interruption_says_how_to_go_on(capsys):
    resumed = dict(resume_hint='the same command with --resume')
    assert cli.run_guarded(failing(KeyboardInterrupt()), **resumed) == cli.INTERRUPTED
    assert '--resume' in capsys.readouterr().err


def test_a_training_that_was_asked_to_stop_has_an_exit_code_of_its_own(capsys):
    assert cli.run_guarded(failing(Stopped("iteration 3 is in 'a.pth'")), 'the same with --resume') == cli.STOPPED == 75
    assert (
        capsys.readouterr().err == "stopped: iteration 3 is in 'a.pth'; the same with --resume continues from there\n"
    )


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG])
def test_a_full_or_read_only_disk_is_one_line(capsys, number):
    assert cli.run_guarded(failing(OSError(number, os.strerror(number), '/a/epoch_1.pth'))) == cli.USER_ERROR
    assert capsys.readouterr().err == f"error: cannot write '/a/epoch_1.pth': {os.strerror(number)}\n"


def test_a_file_that_a_program_lacks_keeps_its_traceback():
    with pytest.raises(FileNotFoundError):
        cli.run_guarded(failing(FileNotFoundError(errno.ENOENT, 'no such file', 'x')))


@pytest.mark.parametrize('given', ['nonsense', '=1', 'a b=1'])
def test_an_option_that_is_no_key_and_value(capsys, given):
    parser = ArgumentParser()
    cli.add_common_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(['config.py', '--cfg-options', 'a.b=1', given])
    assert f'--cfg-options: {given!r} is not key=value' in capsys.readouterr().err


def test_a_model_that_cannot_be_built_is_one_line_and_its_traceback_can_be_had(capsys, monkeypatch, tmp_path):
    config = load_config(arguments(work_dir=str(tmp_path)))
    config.model.backbone.depth = 7
    with pytest.raises(UserError, match=rf"{NAME}.py' cannot be built: KeyError: .*invalid depth 7") as caught:
        cli.build_runner(config)
    monkeypatch.setenv(cli.TRACEBACK, '1')
    assert cli.run_guarded(failing(caught.value)) == cli.USER_ERROR
    assert 'Traceback (most recent call last)' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('part', 'given', 'said'),
    [
        (
            'build_optim_wrapper',
            dict(type='OptimWrapper', optimizer=dict(type='text')),
            'TypeError: None is not a callable',
        ),
        ('build_train_loop', dict(type='text', max_epochs=1), 'KeyError: .*text is not in the'),
        ('build_param_scheduler', dict(type='MultiStepLR', milestones=1e30), 'TypeError: .float. object is not iter'),
        ('build_evaluator', dict(type='mmdet.CocoMetric', metric='text'), 'KeyError: .metric should be one of'),
    ],
)
def test_what_is_built_later_is_one_line_too(tmp_path, monkeypatch, part, given, said):
    runner = make_runner(tmp_path, epochs=1)
    monkeypatch.setattr(cli.ConsoleRunner, 'from_cfg', lambda config: runner)
    monkeypatch.setattr(cli, 'check_config', lambda config: None)
    config = load_config(arguments(work_dir=str(tmp_path)))
    assert cli.build_runner(config) is runner
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    with pytest.raises(UserError, match=rf"{NAME}.py' cannot be built: {said}"):
        getattr(runner, part)(given)


@pytest.mark.parametrize('message, named', [('model.training_queries: no', True), ("'a.json': no", False)])
def test_a_setting_that_the_model_refuses_is_named_with_its_file(tmp_path, monkeypatch, message, named):
    def build(config):
        raise UserError(message)

    monkeypatch.setattr(cli.ConsoleRunner, 'from_cfg', build)
    config = load_config(arguments(work_dir=str(tmp_path)))
    with pytest.raises(UserError) as raised:
        cli.build_runner(config)
    assert str(raised.value) == (f"Config '{config.filename}': {message}" if named else message)


def test_ctrl_c_that_a_library_swallows_is_still_ctrl_c(capsys, monkeypatch):
    """mmengine formats a config under a bare ``except``."""
    config = Config(dict(a=1))

    def press(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmengine.config.config.FormatCode', press)
    with pytest.raises(SyntaxError):
        assert config.pretty_text
    assert cli.run_guarded(lambda: config.pretty_text, '--resume') == cli.INTERRUPTED
    assert capsys.readouterr().err.splitlines() == ['interrupted: --resume continues from the last checkpoint']
    assert cli.run_guarded(failing(UserError('no'))) == cli.USER_ERROR


def test_ctrl_c_in_a_destructor_is_obeyed(capsys, monkeypatch):
    class Fragile:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    def run():
        Fragile()
        time.sleep(20)

    former = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    hook = sys.unraisablehook
    started = time.monotonic()
    try:
        assert cli.run_guarded(run) == cli.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, former)
    assert time.monotonic() - started < 15 and capsys.readouterr().err == 'interrupted\n'
    assert sys.unraisablehook is hook


def test_a_work_directory_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(UserError, match=r"work_dir '.*file': cannot be written \(File exists\)"):
        cli.check_work_dir(str(tmp_path / 'file'))
    with pytest.raises(UserError, match='work_dir .*cannot be written'):
        cli.check_work_dir('/proc/no/such')


def test_ctrl_c_while_libraries_are_imported_ends_without_a_traceback():
    program = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from mmcondetr import cli
def interrupt(name):
    os.kill(os.getpid(), signal.SIGINT)
cli.load_command = interrupt
cli.main(['train'])
"""
    ended = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGINT and ended.stderr == ''


@pytest.fixture
def not_read():
    """The writing end of a pipe whose reader has seen enough, as ``head`` has."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


def test_it_ends_without_a_word_where_nobody_reads_its_output(not_read, source_environment):
    command = [sys.executable, '-W', 'ignore', '-m', 'mmcondetr', '--help']
    environment = dict(source_environment, PYTHONUNBUFFERED='')
    ended = subprocess.run(command, stdout=not_read, stderr=subprocess.PIPE, text=True, env=environment)
    assert (ended.returncode, ended.stderr) == (cli_package.NOT_READ, '')


@pytest.mark.parametrize('buffered', [True, False])
def test_a_command_ends_where_nobody_reads_its_output(buffered, not_read, monkeypatch):
    with open(os.dup(not_read), 'w') as output:
        output.reconfigure(write_through=not buffered)
        monkeypatch.setattr(sys, 'stdout', output)
        before = len(os.listdir('/proc/self/fd')) if os.path.isdir('/proc/self/fd') else 0
        assert cli_package.main(['list']) == cli_package.NOT_READ
        print('more')  # goes nowhere
        assert not before or len(os.listdir('/proc/self/fd')) == before


def test_another_pipe_that_breaks_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli_package, '_run', lambda arguments: failing(BrokenPipeError(errno.EPIPE, 'broken'))())
    with pytest.raises(BrokenPipeError):
        cli_package.main(['list'])


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.run_guarded(failing(ZeroDivisionError()))


@pytest.mark.parametrize('command', cli_package.COMMANDS)
def test_the_help_of_each_command_shows_an_example_that_parses(command, capsys):
    module = cli_package.load_command(command)
    with pytest.raises(SystemExit) as done:
        cli_package.main([command, '--help'])
    assert done.value.code == 0
    examples = re.findall(r'^ {0,4}(mmcondetr .*)$', capsys.readouterr().out, re.M)
    assert examples, f'{command} --help shows no example'
    parser = ArgumentParser(exit_on_error=False)
    module.add_arguments(parser)
    for example in examples:
        words = shlex.split(example, comments=True)
        if words[1] == command:
            parser.parse_args(words[2:])  # else SystemExit
    assert any(shlex.split(example, comments=True)[1] == command for example in examples)


@pytest.mark.parametrize('spelling', ['--local_rank', '--local-rank'])
def test_the_local_rank_reaches_mmengine(monkeypatch, spelling):
    monkeypatch.setattr('os.environ', {})
    parser = ArgumentParser()
    cli.add_common_arguments(parser)
    cli.use_local_rank(parser.parse_args([NAME, spelling, '3']))
    import os

    assert os.environ['LOCAL_RANK'] == '3'


@pytest.mark.parametrize('tool', ['train', 'test'])
def test_a_wrong_config_costs_one_line_and_exit_code_2(run_tool, tmp_path, tool):
    done = run_tool(tool, 'no-such-config', *(['x.pth'] if tool == 'test' else []), cwd=tmp_path)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1 and "Config 'no-such-config' is neither" in lines[0]
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('name, backend', [('tensorboard', 'TensorboardVisBackend'), ('wandb', 'WandbVisBackend')])
def test_one_flag_logs_to_a_dashboard(monkeypatch, name, backend):
    config = load_config(arguments(work_dir='work_dirs/mine'))
    monkeypatch.setattr('importlib.util.find_spec', lambda package: object() if package == name else None)
    train.add_logger(config, name)
    types = [one.type for one in config.visualizer.vis_backends]
    assert types == ['LocalVisBackend', backend]
    assert (config.visualizer.vis_backends[-1].get('init_kwargs') == dict(project='mine')) == (name == 'wandb')
    monkeypatch.setattr('importlib.util.find_spec', lambda package: None)
    with pytest.raises(UserError, match=f'--log {name}: .* is not installed'):
        train.add_logger(config, name)
