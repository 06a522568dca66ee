# SPDX-License-Identifier: Apache-2.0
"""What the cameras show, and pictures for people."""

import subprocess
import sys

import numpy as np
import piserve
import pytest
from piserve.worlds.pictures import PictureError, save_gif, save_png
from piserve.worlds.tabletop import (
    Expert,
    Tabletop,
    render_base,
    render_view,
    render_wrist,
    run_episode,
)
from piserve.worlds.tabletop.__main__ import main
from piserve.worlds.tabletop.pictures import (
    HEIGHT,
    WIDTH,
    Film,
    picture,
)
from piserve.worlds.tabletop.raster import Canvas, cut_near, hull
from piserve.worlds.tabletop.state import BLOCK_HALF, Block

_CAMERAS = [render_base, render_wrist]


def _world(seed=0, **arguments):
    world = Tabletop(**arguments)
    world.start(seed)
    return world


def _mask(image, channel):
    """The pixels in which a channel is far the strongest."""
    pixels = image.astype(int)
    others = np.delete(pixels, channel, axis=2).max(axis=2)
    return pixels[..., channel] > 1.6 * others + 20


def _middle(image, channel):
    """Mean column and row of the pixels of that colour."""
    rows, columns = np.nonzero(_mask(image, channel))
    assert len(rows) > 5, "nothing of that colour is in view"
    return columns.mean(), rows.mean()


@pytest.mark.parametrize("render", _CAMERAS)
@pytest.mark.parametrize("size", [56, 224])
def test_cameras_give_rgb_bytes_of_the_asked_size(render, size):
    image = render(_world().state, size)
    assert image.shape == (size, size, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


@pytest.mark.parametrize("render", _CAMERAS)
def test_rendering_changes_neither_the_state_nor_the_next_image(render):
    world = _world()
    before = world.state.copy()
    first = render(world.state, 64)
    assert world.state == before
    np.testing.assert_array_equal(render(world.state, 64), first)


def test_the_base_camera_shows_a_block_move_to_its_right_and_nearer():
    world = _world()
    for i in (1, 2):
        world.state.blocks[i] = Block(-0.1, -0.1 - 0.1 * i, BLOCK_HALF, 0.0)
    world.state.blocks[0] = Block(0.05, 0.0, BLOCK_HALF, 0.0)
    column, row = _middle(render_base(world.state, 224), 0)
    world.state.blocks[0] = Block(0.12, 0.1, BLOCK_HALF, 0.0)
    right, low = _middle(render_base(world.state, 224), 0)
    assert right > column + 30
    assert low > row + 15


@pytest.mark.parametrize("colour", [0, 1, 2])
def test_every_colour_is_seen_as_itself_by_the_base_camera(colour):
    world = _world()
    state = world.state
    state.z = 0.28
    places = [(0.1, -0.12), (0.1, 0.0), (0.1, 0.12)]
    for index, (x, y) in enumerate(places):
        state.blocks[index] = Block(x, y, BLOCK_HALF, 0.0)
    columns = [_middle(render_base(state, 224), i)[0] for i in range(3)]
    assert columns == sorted(columns)
    assert _middle(render_base(state, 224), colour)[1] > 112


def test_the_wrist_camera_moves_with_the_hand():
    world = _world()
    state = world.state
    state.yaw = 0.0
    state.blocks[0] = Block(state.x, state.y, BLOCK_HALF, 0.0)
    for i in (1, 2):
        state.blocks[i] = Block(-0.2, 0.2 + 0.05 * i, BLOCK_HALF, 0.0)
    column, _ = _middle(render_wrist(state, 224), 0)
    assert abs(column - 112) < 3  # the block is below the fingers
    state.y += 0.03
    moved, _ = _middle(render_wrist(state, 224), 0)
    assert abs(moved - column) > 15
    state.y -= 0.03
    state.yaw = 0.4
    assert not np.array_equal(
        render_wrist(state, 224)[:, 60:160], render_base(state, 224)[:, 60:160]
    )


def test_both_cameras_show_the_fingers_close():
    world = _world()
    for render in _CAMERAS:
        world.state.finger = 0.04
        wide = render(world.state, 224)
        world.state.finger = 0.0
        shut = render(world.state, 224)
        assert (wide != shut).any(axis=2).sum() > 50


def test_a_nearer_box_hides_a_farther_one():
    world = _world()
    state = world.state
    state.blocks[0] = Block(0.08, 0.0, BLOCK_HALF, 0.0)
    state.blocks[1] = Block(0.08 - 2.01 * BLOCK_HALF, 0.0, BLOCK_HALF, 0.0)
    state.blocks[2] = Block(-0.2, 0.2, BLOCK_HALF, 0.0)
    image = render_base(state, 224)
    _, red = _middle(image, 0)
    _, green = _middle(image, 1)
    assert red > green
    reds = _mask(image, 0).sum()
    greens = _mask(image, 1).sum()
    assert reds > 1.4 * greens  # of green only the top is seen


def test_a_camera_inside_a_block_still_renders():
    world = _world()
    state = world.state
    state.blocks[0] = Block(state.x - 0.085, state.y, state.z + 0.085, 0.0)
    assert render_wrist(state, 64).shape == (64, 64, 3)


def test_a_polygon_is_filled_within_its_edges_only():
    canvas = Canvas(np.zeros((10, 10, 3), np.float32))
    square = [(2.0, 3.0), (8.0, 3.0), (8.0, 7.0), (2.0, 7.0)]
    canvas.paint(square, np.full(3, 100, np.float32))
    assert canvas.rgb[3:7, 2:8].min() == 100
    canvas.rgb[2:8, 1:9] = 0  # but for the soft edge nothing else is touched
    assert canvas.rgb.max() == 0


@pytest.mark.parametrize("turn", [1, -1])
def test_a_polygon_is_filled_whichever_way_round_it_goes(turn):
    canvas = Canvas(np.zeros((8, 8, 3), np.float32))
    corners = [(1.0, 1.0), (7.0, 1.0), (4.0, 7.0)][::turn]
    canvas.paint(corners, np.full(3, 10, np.float32))
    assert canvas.rgb[3, 4, 0] == 10


def test_what_is_out_of_the_image_or_edge_on_is_not_drawn():
    canvas = Canvas(np.zeros((8, 8, 3), np.float32))
    white = np.full(3, 255, np.float32)
    canvas.paint([(20.0, 20.0), (30.0, 20.0), (30.0, 30.0)], white)
    canvas.paint([(1.0, 1.0), (5.0, 5.0), (3.0, 3.0)], white)
    canvas.paint([(1.0, 1.0), (5.0, 5.0)], white)
    assert canvas.rgb.max() == 0


def test_what_is_behind_the_camera_is_cut_off():
    corners = [(0.0, 0.0, 1.0), (1.0, 0.0, 1.0), (0.0, 0.0, -1.0)]
    cut = cut_near(corners)
    assert len(cut) == 4
    assert min(corner[2] for corner in cut) > 0
    assert cut_near([(0.0, 0.0, -1.0)] * 3) == []


def test_a_hull_leaves_out_inner_points():
    square = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    assert sorted(hull([*square, (0.5, 0.5), (0.2, 0.7)])) == sorted(square)


# ---------------------------------------------------------------- for people


def test_a_view_for_people_may_have_any_shape():
    view = render_view(_world().state, 320, 200)
    assert view.shape == (200, 320, 3)


def test_a_film_of_an_episode_is_written_as_a_gif(tmp_path):
    image = pytest.importorskip("PIL.Image")
    world = Tabletop(image_size=16, max_steps=6)
    film = Film(every=3)
    run_episode(Expert(world), 0, world=world, on_step=film)
    assert len(film.frames) == 3  # steps 0, 3 and 6
    save_gif(tmp_path / "film.gif", film.frames)
    with image.open(tmp_path / "film.gif") as read:
        assert read.n_frames == 3
        assert read.size == (WIDTH, HEIGHT)


def test_a_picture_is_written_as_a_png_without_loss(tmp_path):
    image = pytest.importorskip("PIL.Image")
    frame = picture(_world())
    save_png(tmp_path / "frame.png", frame)
    with image.open(tmp_path / "frame.png") as read:
        np.testing.assert_array_equal(np.asarray(read), frame)


def test_a_film_without_frames_is_refused():
    with pytest.raises(PictureError, match="got 0 frames"):
        save_gif("film.gif", [])


def test_without_pillow_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    install = r"pip install 'clients/python\[pictures\]'"
    with pytest.raises(PictureError, match=install):
        Film()


def test_the_command_prints_the_success_rate_and_writes_files(tmp_path, capsys):
    pytest.importorskip("PIL.Image")
    gif, png = tmp_path / "a.gif", tmp_path / "a.png"
    files = ["--gif", str(gif), "--png", str(png)]
    assert main(["--episodes", "1", "--image-size", "16", *files]) == 0
    out = capsys.readouterr().out
    assert "success 1/1 (100.0 %)" in out
    assert gif.stat().st_size > 10_000
    assert png.stat().st_size > 1_000


def test_the_command_fails_when_a_file_cannot_be_written(tmp_path, capsys):
    pytest.importorskip("PIL.Image")
    png = str(tmp_path / "missing" / "a.png")
    assert main(["--episodes", "1", "--image-size", "16", "--png", png]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_the_world_alone_needs_neither_pillow_nor_grpc():
    code = (
        "import sys\n"
        "for name in ('PIL', 'grpc', 'google'): sys.modules[name] = None\n"
        "from worlds.tabletop import Tabletop\n"
        "print(sorted(Tabletop(image_size=16).reset(0)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=next(iter(piserve.__path__)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "observation/wrist_image" in done.stdout
