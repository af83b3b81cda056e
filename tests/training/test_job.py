"""Trainings from end to end: every stage, exact whatever interrupts it, and files that others read."""

import copy
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import MotionAdapter, StableDiffusionPipeline, UNet2DConditionModel, UNetMotionModel
from safetensors.torch import load_file

import stillmotion as sm
from stillmotion import toyworld
from stillmotion.bench.clock import threads
from stillmotion.cli.door import main
from stillmotion.data import write_clip
from stillmotion.errors import Cancelled, ConfigError, FileError, MismatchError
from stillmotion.training import MotionDied, Prepared, TrainConfig, Trained, Validated

FRAMES = 4


def weights(folder: Path, step: int, name: str = "weights") -> dict[str, torch.Tensor]:
    """Return what a checkpoint holds."""
    return load_file(folder / f"step-{step}" / f"{name}.safetensors")


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Hold two sets of weights equal to the bit."""
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def losses(config: TrainConfig) -> list[float]:
    """Train and return every step's loss."""
    found: list[float] = []
    sm.train(config, progress=lambda event: found.append(event.loss) if isinstance(event, Trained) else None)
    return found


def logged(config: TrainConfig) -> list[float]:
    """Return every step's loss, as the metrics have it."""
    lines = [json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def motion_file(config: TrainConfig) -> Path:
    """Train a motion module for others to begin with; return its file."""
    return sm.train(config)[0]


def test_a_motion_module_is_trained_and_everyone_reads_it(config: TrainConfig, tiny_model: Path) -> None:
    events: list[Any] = []
    files = sm.train(config, progress=events.append)
    assert [path.name for path in files] == [
        "motion_module.safetensors",
        "motion_module.ckpt",
        "motion_module-diffusers",
        "motion_module-comfyui.safetensors",
    ]
    prepared = next(event for event in events if isinstance(event, Prepared))
    assert (prepared.num_clips, prepared.num_skipped, prepared.first_step) == (5, 0, 0)
    assert [event.step for event in events if isinstance(event, Validated)] == [3, 6]
    average = weights(config.output_dir, 6, "ema")
    for path in files:
        read = sm.load(path, expect=sm.MotionModule)
        for name, value in average.items():
            torch.testing.assert_close(read.state_dict()[name], value, rtol=0, atol=0)
    assert any(value.abs().sum() > 0 for name, value in average.items() if "proj_out" in name)
    unet = UNet2DConditionModel.from_pretrained(tiny_model / "unet").eval()
    theirs = UNetMotionModel.from_unet2d(unet, MotionAdapter.from_pretrained(files[2])).eval()
    latents, text = torch.randn(1, 4, FRAMES, 4, 4), torch.randn(FRAMES, 20, 32)
    motion = sm.load(files[2], expect=sm.MotionModule, motion_norm="across_frames")
    with torch.no_grad(), sm.plug(unet, motion, FRAMES):
        ours = unet(latents[0].transpose(0, 1), 300, encoder_hidden_states=text).sample
        other = theirs(latents, 300, encoder_hidden_states=text).sample[0].transpose(0, 1)
    torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-5)
    told = json.loads(sm.inspect(files[0]).metadata["training"])
    assert told["step"] == 6
    assert told["config"]["num_steps"] == 6
    assert told["config"]["output_dir"] == config.output_dir.name  # nobody's folders in a file that is given away
    assert str(config.output_dir.parent) not in str(told)
    assert {name.split("/")[1] for name in told["parents"]} == {"unet", "vae", "text_encoder"}


def test_a_domain_adapter_is_trained_on_single_frames_and_diffusers_loads_it(
    config: TrainConfig, tiny_model: Path
) -> None:
    adapting = config.replace(stage="domain_adapter", rank=4, learning_rate=1e-2, caption_dropout=0)
    files = {path.name: path for path in sm.train(adapting)}
    adapter = sm.load(files["domain_adapter.safetensors"], expect=sm.DomainAdapter)
    assert adapter.rank == 4
    assert all(".attn1." in path or ".attn2." in path for path in adapter.weights)
    pipe = StableDiffusionPipeline.from_pretrained(tiny_model, safety_checker=None)
    inputs = torch.randn(2, 4, 4, 4), 300, torch.randn(2, 20, 32)
    ours = copy.deepcopy(pipe.unet)
    for path, (down, up) in adapter.weights.items():
        ours.get_submodule(path).weight.data += up @ down
    with torch.no_grad():
        before = pipe.unet(*inputs).sample
        pipe.load_lora_weights(str(files["domain_adapter-diffusers.safetensors"]))
        torch.testing.assert_close(pipe.unet(*inputs).sample, ours(*inputs).sample, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(before, ours(*inputs).sample, atol=1e-3)


def test_a_motion_lora_is_trained_over_a_motion_module(config: TrainConfig, tmp_path: Path) -> None:
    motion = motion_file(config)
    learning = config.replace(
        stage="motion_lora", motion=str(motion), output_dir=tmp_path / "lora", rank=4, appearance_debias=1.0
    )
    found = losses(learning.replace(num_steps=30, learning_rate=1e-2, decay_from=0.5))
    assert sum(found[-5:]) < sum(found[:5])
    files = [learning.output_dir / name for name in ("motion_lora.safetensors", "motion_lora.ckpt")]
    for path in files:
        lora = sm.load(path, expect=sm.MotionLora)
        assert lora.rank == 4
        assert all(".motion_modules." in name for name in lora.weights)
    assert_same(
        {name: down for name, (down, _) in sm.load(files[0], expect=sm.MotionLora).weights.items()},
        {name: down for name, (down, _) in sm.load(files[1], expect=sm.MotionLora).weights.items()},
    )


def test_a_convolution_is_trained_in_place_of_the_transformer(config: TrainConfig, tmp_path: Path) -> None:
    config = config.replace(architecture="temporal_conv")
    with pytest.raises(ConfigError, match="dialects: diffusers knows no such motion module; expected stillmotion"):
        sm.train(config.replace(dialects=("stillmotion", "diffusers")))
    files = sm.train(config)
    assert [path.name for path in files] == ["motion_module.safetensors"]
    motion = sm.load(files[0], expect=sm.MotionModule)
    assert motion.architecture.name == "temporal_conv"
    assert all(float(site.proj_out.weight.abs().max()) > 0 for site in motion.sites().values())
    begun = config.replace(motion=str(files[0]), output_dir=tmp_path / "begun")
    with pytest.raises(MismatchError, match="is a temporal_conv, expected transformer"):
        sm.train(begun.replace(architecture="transformer"))
    with pytest.raises(MismatchError, match="attention"):
        sm.train(begun.replace(stage="motion_lora", architecture=None, rank=4))


def test_before_the_first_step_a_new_motion_module_is_the_image_model(config: TrainConfig) -> None:
    """Its output projections are zero, so nothing but the loss's own randomness decides the first loss."""
    first = losses(config.replace(num_steps=1))[0]
    other = losses(config.replace(num_steps=1, variant="v2", output_dir=config.output_dir / "v2"))[0]
    assert first == other


def test_stages_go_with_one_another(config: TrainConfig, tmp_path: Path) -> None:
    """Adapter, then a motion module with it at work, then a MotionLoRA over both."""
    adapter = sm.train(config.replace(stage="domain_adapter", rank=2, output_dir=tmp_path / "1", learning_rate=1e-2))[0]
    plain = losses(config.replace(output_dir=tmp_path / "2 plain"))
    adapted = config.replace(domain_adapter=f"{adapter}:1", output_dir=tmp_path / "2")
    assert losses(adapted) != plain
    motion = tmp_path / "2" / "motion_module.safetensors"
    lora = config.replace(stage="motion_lora", motion=str(motion), rank=2, domain_adapter=str(adapter))
    assert sm.train(lora.replace(output_dir=tmp_path / "3"))


def test_a_batch_in_parts_is_the_batch(config: TrainConfig) -> None:
    """Losses are compared, not weights: Adam takes a full step in the direction of a gradient that is all rounding."""
    whole = losses(config)
    assert losses(config.replace(micro_batch_size=1, output_dir=config.output_dir / "parts")) == pytest.approx(
        whole, rel=1e-5
    )


def test_reading_ahead_and_checkpointing_change_nothing(config: TrainConfig) -> None:
    plain = losses(config)
    ahead = losses(config.replace(num_workers=3, output_dir=config.output_dir / "ahead"))
    again = losses(config.replace(gradient_checkpointing=True, output_dir=config.output_dir / "again"))
    assert ahead == plain
    assert again == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_in_half_precision_it_learns_the_same(config: TrainConfig, precision: str) -> None:
    plain = losses(config)
    half = losses(config.replace(precision=precision, output_dir=config.output_dir / "half"))
    assert half == pytest.approx(plain, rel=0.05)
    assert (
        weights(config.output_dir / "half", 6)["down_blocks.0.motion_modules.0.proj_out.weight"].dtype is torch.float32
    )


def test_in_float16_a_stopped_run_goes_on_bit_for_bit(config: TrainConfig) -> None:
    config = config.replace(precision="float16")
    sm.train(config)
    stopped = config.replace(output_dir=config.output_dir / "stopped")
    steps: list[int] = []
    with pytest.raises(Cancelled):
        sm.train(
            stopped,
            progress=lambda event: steps.append(event.step) if isinstance(event, Trained) else None,
            stop=lambda: len(steps) == 2,
        )
    sm.train(stopped)
    assert_same(weights(stopped.output_dir, 6), weights(config.output_dir, 6))
    lines = [json.loads(line) for line in (stopped.output_dir / "metrics.jsonl").read_text().splitlines()]
    assert all(line["loss_scale"] > 1 for line in lines if "loss" in line)


def test_clips_of_several_shapes_are_trained_at_their_own(
    config: TrainConfig, clips: Path, tiny_model: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(clips, mixed)
    for index in range(3):
        tall = np.full((12, 64, 32, 3), 60 * index, np.uint8)
        tall[:, 8:20, 4:20] = 200
        write_clip(list(tall), mixed / f"tall-{index}.mp4", 8)
        (mixed / f"tall-{index}.txt").write_text("a tall clip")
    config = config.replace(data=str(mixed), buckets=True)
    plain = losses(config)
    assert losses(config.replace(micro_batch_size=2, output_dir=tmp_path / "parts")) == pytest.approx(plain, rel=1e-4)
    words = ["data", "prepare", str(mixed), "--model", str(tiny_model), "--out", str(tmp_path / "cache"), "--plain"]
    assert main([*words, "-W", "32", "-H", "32", "--dtype", "float32", "--buckets"]) == 0
    cached = config.replace(data=str(tmp_path / "cache"), width=None, buckets=False, output_dir=tmp_path / "cached")
    assert losses(cached) == pytest.approx(plain, rel=1e-5)


def test_a_fine_tuning_that_unlearns_motion_is_stopped(tmp_path: Path) -> None:
    told: list[Validated] = []
    config = TrainConfig(
        stage="motion_module",
        data="toyworld:3",
        motion=str(toyworld.motion_file()),
        output_dir=tmp_path / "gentle",
        num_frames=4,
        num_steps=2,
        batch_size=1,
        warmup_steps=0,
        checkpoint_every=1,
        dialects=("stillmotion",),
        device="cpu",
    )
    sm.train(config, progress=lambda event: told.append(event) if isinstance(event, Validated) else None)
    assert [event.step for event in told] == [0, 2]
    before, after = (event.motion or 0.0 for event in told)
    assert before > 0.2
    assert after > 0.95 * before
    broken = config.replace(learning_rate=0.1, ema_decay=0.0, output_dir=tmp_path / "broken")
    with pytest.raises(MotionDied, match=r"motion_guard \(0\.5\).*motion_guard=0"):
        sm.train(broken)
    assert [path.name for path in sorted(broken.output_dir.glob("step-*"))] == ["step-1", "step-2"]
    assert sm.train(broken.replace(motion_guard=0))


def test_tensorboard_has_what_the_metrics_have(config: TrainConfig) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = losses(config)
    board = EventAccumulator(str(config.output_dir / "tensorboard"))
    board.Reload()
    assert [scalar.value for scalar in board.Scalars("loss")] == pytest.approx(found, rel=1e-6)
    assert [scalar.step for scalar in board.Scalars("validation_loss")] == [3, 6]


RUN = """
import sys
import stillmotion as sm

sm.train(sm.TrainConfig.from_yaml(sys.argv[1]))
"""


def kill_and_go_on(config: TrainConfig, path: Path, times: int) -> None:
    """Train in processes that are killed at random moments, `times` times, and once to the end."""
    path.write_text(config.to_yaml())
    chance = random.Random(0)
    metrics = config.output_dir / "metrics.jsonl"
    for _ in range(times):
        before = metrics.stat().st_mtime_ns if metrics.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", RUN, path], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while not metrics.exists() or metrics.stat().st_mtime_ns == before:  # written when the first step is near
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 0.3))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL  # in the midst of it
    subprocess.run([sys.executable, "-c", RUN, path], check=True, capture_output=True)


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_ends_bit_for_bit_as_if_it_had_not(
    config: TrainConfig, tmp_path: Path, times: int
) -> None:
    last = 15 * times  # more than is done in the seconds between the kills
    config = config.replace(num_steps=last, checkpoint_every=1, validate_every=last)
    sm.train(config)
    killed = config.replace(output_dir=tmp_path / "killed")
    kill_and_go_on(killed, tmp_path / "killed.yaml", times)
    assert_same(weights(killed.output_dir, last), weights(config.output_dir, last))
    assert_same(weights(killed.output_dir, last, "ema"), weights(config.output_dir, last, "ema"))
    assert noted(killed) == noted(config)
    assert not [*killed.output_dir.glob(".*.partial")]


def noted(config: TrainConfig) -> list[dict[str, float]]:
    """Return the lines of the metrics, but for how long each step took."""
    lines = map(json.loads, (config.output_dir / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.parametrize("killed_at", [3, 6])
def test_a_run_killed_before_a_validation_makes_up_for_it(config: TrainConfig, killed_at: int) -> None:
    sm.train(config.replace(output_dir=config.output_dir.with_name("whole")))
    metrics = config.output_dir / "metrics.jsonl"
    sm.train(config.replace(num_steps=killed_at))
    lines = metrics.read_text().splitlines(keepends=True)
    assert "validation_loss" in lines[-1]
    metrics.write_text("".join(lines[:-1]))
    told: list[int] = []
    sm.train(config, progress=lambda event: told.append(event.step) if isinstance(event, Validated) else None)
    assert told == list(range(killed_at, 7, 3))
    assert noted(config) == noted(config.replace(output_dir=config.output_dir.with_name("whole")))


def test_what_a_killed_run_left_unfinished_is_removed_by_the_next(config: TrainConfig) -> None:
    left = config.output_dir / ".step-3.0123abcd.partial"
    left.mkdir(parents=True)
    (left / "weights.safetensors").write_bytes(b"half")
    (config.output_dir / ".lock").touch()
    sm.train(config)
    assert not left.exists()


def test_a_line_of_metrics_that_was_cut_before_its_end_stays_a_line(config: TrainConfig) -> None:
    metrics = config.output_dir / "metrics.jsonl"
    sm.train(config)
    told = metrics.read_text()
    metrics.write_text(told.removesuffix("\n"))
    sm.train(config.replace(num_steps=8))
    assert metrics.read_text().startswith(told)


def test_sigterm_saves_and_exits_with_zero(config: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "long.yaml"
    config = config.replace(num_steps=5000, checkpoint_every=5000)
    path.write_text(config.to_yaml())
    command = [sys.executable, "-m", "stillmotion", "train", "motion-module", "-c", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (config.output_dir / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "goes on from there" in told
    assert len(list(config.output_dir.glob("step-*"))) == 1


def test_two_runs_on_one_folder_are_refused(config: TrainConfig) -> None:
    from stillmotion.training import training

    first = training(config)
    next(first)
    with pytest.raises(FileError, match="another run is at work"):
        sm.train(config)
    first.close()
    assert sm.train(config)


def test_a_run_of_another_config_is_kept(config: TrainConfig) -> None:
    sm.train(config)
    before = weights(config.output_dir, 6)
    with pytest.raises(ConfigError, match=r"learning_rate was 0\.001, now 0\.002"):
        sm.train(config.replace(learning_rate=2e-3))
    assert_same(weights(config.output_dir, 6), before)
    longer = losses(config.replace(num_steps=8))
    assert len(longer) == 2


def test_bad_input_is_named_before_anything_is_loaded(config: TrainConfig, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    for changes, kind, said in (
        ({"data": str(tmp_path / "nowhere")}, FileError, "nowhere"),
        ({"data": str(tmp_path / "empty")}, FileError, "empty"),
        ({"data": "toyworld:2:zoom-inn"}, ConfigError, "zoom-in"),
        ({"data": "toyworld:many"}, ConfigError, "toyworld:COUNT"),
        ({"model": str(tmp_path / "nowhere.safetensors")}, FileError, "nowhere.safetensors"),
        ({"motion": str(tmp_path / "nowhere.ckpt")}, ConfigError, "motion: .*nowhere.ckpt"),
        ({"output_dir": tmp_path / "file" / "run"}, FileError, "output_dir"),
        ({"output_dir": tmp_path / "other"}, FileError, "holds other files"),
        ({"num_frames": 12}, ConfigError, "shorter than 12 frames"),
        ({"stage": "motion_lora", "rank": 500, "motion": "TRAINED"}, MismatchError, "rank is 500"),
    ):
        if changes.get("motion") == "TRAINED":
            changes["motion"] = str(motion_file(config.replace(output_dir=tmp_path / "trained")))
        with pytest.raises(kind, match=said):
            sm.train(config.replace(**changes))
    for changes, said in (
        ({"rank": 0}, "rank: expected an integer from 1"),
        ({"rank": 4}, "rank: a motion module is trained whole"),
        ({"strategy": "fsdp", "optimizer": "muon"}, "optimizer: muon takes whole matrices"),
        ({"micro_batch_size": 3}, "micro_batch_size: expected a divisor of batch_size 4"),
        ({"stage": "motion_lora"}, "motion: a MotionLoRA is trained for a motion module"),
        ({"stage": "motion_lora", "motion": "a", "horizontal_flip": True}, "horizontal_flip"),
    ):
        with pytest.raises(ConfigError, match=said):
            config.replace(**changes)
    with pytest.raises(ConfigError, match="unknown key; the nearest is 'learning_rate'"):
        TrainConfig.from_dict({**config.to_dict(), "learning_rat": 1})


def test_from_the_command_line(config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(config.to_yaml())
    assert main(["train", "motion-module", "-c", str(path), "--set", "num_steps=2", "--plain"]) == 0
    told = capsys.readouterr()
    assert str(config.output_dir / "motion_module.safetensors") in told.out.splitlines()
    assert "5 clips" in told.err
    assert "validation loss" in told.err
    assert main(["train", "motion-module", "-c", str(path), "--set", "num_step=2", "--plain"]) == 2
    assert "nearest is 'num_steps'" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sample_clips_are_made_on_the_way(config: TrainConfig, precision: str) -> None:
    sm.train(config.replace(num_steps=2, sample_every=2, sample_prompts=("a ball",), precision=precision))
    folder = config.output_dir / "samples" / "step-000002"
    assert sorted(path.name for path in folder.iterdir()) == ["0.mp4", "0.png"]


def spread(config: TrainConfig, path: Path, processes: int, stop_at: int | None = None) -> None:
    """Train in several processes of one world; with `stop_at` end them there, as if they had been stopped."""
    path.write_text((config.replace(num_steps=stop_at) if stop_at else config).to_yaml())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    script = path.with_suffix(".py")
    script.write_text(RUN)
    done = subprocess.run([*command, str(script), str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_are_one_training(config: TrainConfig, tmp_path: Path, strategy: str) -> None:
    """Stopped with two and gone on with one, a run is that of one process alone, of the same micro-batches."""
    config = config.replace(micro_batch_size=2, sample_every=4, sample_prompts=("a ball",))
    fewer = config.replace(output_dir=tmp_path / "fewer", strategy=strategy)
    spread(fewer, tmp_path / "fewer.yaml", 2, stop_at=4)
    assert sorted(path.name for path in (fewer.output_dir / "samples" / "step-000004").iterdir()) == ["0.mp4", "0.png"]
    with threads(1):  # as `torchrun` has its processes: how a sum is parted shows in its last digit
        sm.train(config)
        sm.train(fewer)
    assert logged(fewer) == pytest.approx(logged(config), rel=1e-6)
    ours, theirs = (load_file(run.output_dir / "motion_module.safetensors") for run in (fewer, config))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) <= 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_go_on_bit_for_bit(config: TrainConfig, tmp_path: Path, strategy: str) -> None:
    config = config.replace(strategy=strategy)
    whole, broken = config.replace(output_dir=tmp_path / "whole"), config.replace(output_dir=tmp_path / "broken")
    spread(whole, tmp_path / "whole.yaml", 2)
    spread(broken, tmp_path / "broken.yaml", 2, stop_at=4)
    spread(broken, tmp_path / "broken.yaml", 2)
    assert_same(weights(broken.output_dir, 6), weights(whole.output_dir, 6))


def test_from_the_cache_and_from_the_clips_the_losses_are_the_same(config: TrainConfig, tmp_path: Path) -> None:
    words = ["data", "prepare", config.data, "--model", config.model, "--out", str(tmp_path / "latents"), "--plain"]
    assert main([*words, "-W", "32", "-H", "32", "--dtype", "float32"]) == 0
    cached = config.replace(data=str(tmp_path / "latents"), output_dir=tmp_path / "cached", width=None)
    assert losses(cached) == pytest.approx(losses(config), rel=1e-5)


def test_a_cache_of_another_vae_is_refused(config: TrainConfig, tmp_path: Path) -> None:
    words = ["data", "prepare", config.data, "--out", str(tmp_path / "latents"), "--plain"]
    assert main([*words, "-W", "32", "-H", "32"]) == 0  # by the toyworld's VAE
    with pytest.raises(MismatchError, match="encoded by another VAE"):
        sm.train(config.replace(data=str(tmp_path / "latents")))


def test_a_bias_of_the_timesteps_reaches_the_loss(config: TrainConfig) -> None:
    losses: list[float] = []
    for bias in (1.0, 8.0):
        run = config.replace(num_steps=1, timestep_bias=bias, output_dir=config.output_dir / f"{bias:g}")
        sm.train(run, progress=lambda event: losses.append(event.loss) if isinstance(event, Trained) else None)
    assert len(losses) == 2 and abs(losses[0] - losses[1]) > 1e-3


def test_what_is_decayed_by_muon_is_in_the_config(config: TrainConfig) -> None:
    losses: dict[float, list[float]] = {0.0: [], 10.0: []}
    for decay, told in losses.items():
        run = config.replace(
            num_steps=3, warmup_steps=0, optimizer="muon", muon_decay=decay, output_dir=config.output_dir / f"{decay:g}"
        )
        sm.train(run, progress=lambda event, told=told: told.append(event.loss) if isinstance(event, Trained) else None)
    assert losses[0.0][0] == losses[10.0][0]
    assert losses[0.0][2] != losses[10.0][2]
