"""A run's folder stands for its best checkpoint, or its last; a new run in it says what it would overwrite."""

import os
import time
from argparse import Namespace

import pytest
from mmengine.config import Config

from mmcondetr.checkpoints.reading import find_file
from mmcondetr.checkpoints.work_dirs import checkpoints_in, last_checkpoint
from mmcondetr.engine.config import apply_training_options
from mmcondetr.engine.testing import apply_testing_options
from mmcondetr.errors import UserError


@pytest.fixture
def run(tmp_path):
    for name in ('epoch_2.pth', 'epoch_10.pth', 'notes.txt'):
        (tmp_path / name).touch()
    return tmp_path


def test_the_last_is_the_highest_number_unless_the_run_says_otherwise(run):
    assert checkpoints_in(run) == ['epoch_2.pth', 'epoch_10.pth']
    assert find_file(run) == last_checkpoint(run) == str(run / 'epoch_10.pth')
    (run / 'last_checkpoint').write_text('/where/it/was/trained/epoch_2.pth')  # the folder was moved
    assert last_checkpoint(run) == str(run / 'epoch_2.pth')
    (run / 'last_checkpoint').write_text('/where/it/was/trained/epoch_3.pth')
    assert last_checkpoint(run) == str(run / 'epoch_10.pth')


def test_the_best_comes_first_and_several_are_a_question(run):
    (run / 'best_coco_bbox_mAP_epoch_2.pth').touch()
    assert find_file(run) == str(run / 'best_coco_bbox_mAP_epoch_2.pth')
    (run / 'best_loss_epoch_2.pth').touch()
    with pytest.raises(UserError, match='several best checkpoints, best_coco_bbox_mAP_epoch_2.pth, best_loss_epoch_2'):
        find_file(run)


def test_a_second_run_in_the_folder_has_the_best_of_its_own(run):
    for epoch, age in ((3, 100), (1, 50)):
        path = run / f'best_coco_bbox_mAP_epoch_{epoch}.pth'
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    assert find_file(run) == str(run / 'best_coco_bbox_mAP_epoch_1.pth')


def test_testing_a_folder_tests_its_best(run):
    (run / 'best_coco_bbox_mAP_epoch_2.pth').touch()
    given = dict(out=None, show=False, show_dir=None, tta=False, optimize=None, compile=False, runtime=None)
    config = Config(dict())
    given['batch_size'] = None
    apply_testing_options(config, Namespace(checkpoint=str(run), **given))
    assert config.load_from == str(run / 'best_coco_bbox_mAP_epoch_2.pth')


def options(resume=None):
    return Namespace(amp=False, amp_dtype=None, auto_scale_lr=False, resume=resume)


def test_a_new_run_in_the_folder_of_another_says_so(run, capsys):
    apply_training_options(Config(dict(work_dir=str(run))), options())
    output = capsys.readouterr().out
    assert f'{run} holds checkpoints of an earlier run (epoch_2.pth, epoch_10.pth), which this one will over' in output
    assert '--resume' in output and '--work-dir' in output
    apply_training_options(Config(dict(work_dir=str(run / 'new'))), options())
    assert capsys.readouterr().out == ''


def test_resuming_a_folder_goes_on_from_its_last(run, capsys):
    (run / 'best_coco_bbox_mAP_epoch_2.pth').touch()
    config = Config(dict(work_dir=str(run)))
    apply_training_options(config, options(resume=str(run)))
    assert (config.resume, config.load_from) == (True, str(run / 'epoch_10.pth'))
    assert 'overwrite' not in capsys.readouterr().out


def test_resuming_a_folder_whose_note_is_of_another_place_or_gone(run, tmp_path):
    """It began anew, over what was there, or looked where the folder had been before."""

    def resumed() -> tuple:
        config = Config(dict(work_dir=str(run)))
        apply_training_options(config, options(resume='auto'))
        return config.resume, config.load_from

    assert resumed() == (True, str(run / 'epoch_10.pth'))
    (run / 'last_checkpoint').write_text('/where/it/was/trained/epoch_2.pth')
    assert resumed() == (True, str(run / 'epoch_2.pth'))
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    (elsewhere / 'epoch_12.pth').touch()  # CheckpointHook's out_dir
    (run / 'last_checkpoint').write_text(str(elsewhere / 'epoch_12.pth'))
    assert resumed() == (True, str(elsewhere / 'epoch_12.pth'))


@pytest.mark.parametrize('scheme', ['HTTPS', 's3', 'x:s3', 'torchvision', 'open-mmlab', 'petrel', 'modelscope'])
def test_resuming_a_folder_connects_to_no_server_that_is_noted_in_it(run, scheme):
    (run / 'last_checkpoint').write_text(f'{scheme}://127.0.0.1:9/x.pth')
    config = Config(dict(work_dir=str(run)))
    with pytest.raises(UserError, match=rf"last_checkpoint' names a URL, '{scheme}:.*give the URL, or a file"):
        apply_training_options(config, options(resume='auto'))
    assert find_file(run) == str(run / 'epoch_10.pth')


@pytest.mark.skipif(os.name != 'posix', reason='about links to devices')
def test_a_note_that_is_a_link_to_a_device_is_none(run):
    (run / 'last_checkpoint').symlink_to('/dev/zero')
    assert find_file(run) == last_checkpoint(run) == str(run / 'epoch_10.pth')
