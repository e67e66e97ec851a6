"""The page: fields, buttons and what they call, in gradio."""

import os
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cascade.app import painters, requests, scenes
from cascade.app.drawing import COLOURS
from cascade.app.settings import MAX_FILE_MB, MAX_WAITING, AppSettings
from cascade.reading import SUFFIXES

_TAKE_BRUSH = """() => { const wait = setInterval(() => {
    const brush = document.querySelector('#drawing [aria-label=Brush]');
    if (brush) { brush.click(); clearInterval(wait); }
}, 200); }"""  # so that the first stroke is drawn
_MAX_REQUEST = 500_000_000  # bytes
_KEPT_S = 1800  # of drawings and results, on disk
_POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"  # a browser fetches nothing from elsewhere
_SHOWN = {"type": "numpy", "format": "png", "height": 440, "interactive": False, "buttons": ["download", "fullscreen"]}


def serve(settings: AppSettings) -> None:
    """Serve the page until it is interrupted; everything it was sent, and made, is deleted then.

    Raises ImportError without gradio, ValueError for an address that cannot be listened on, or a model that paints no
    planes.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio as gr
        import uvicorn
        from fastapi import FastAPI
    except ImportError as error:
        raise ImportError(f"the page needs gradio: pip install 'cascade-microscopy[app]' ({error})") from error
    listening = _listening(settings.host, settings.port)
    with tempfile.TemporaryDirectory(prefix="cascade-app-") as folder, listening:
        os.environ["GRADIO_TEMP_DIR"] = folder
        _each_upload_apart()
        page = build(painters.painters(settings.model), Path(folder))
        site = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        font = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
        mounted = gr.mount_gradio_app(
            site,
            page,
            path="",
            server_name=settings.host,
            footer_links=[],
            run_history=False,
            show_error=False,
            max_file_size=f"{MAX_FILE_MB}mb",
            ssr_mode=False,
            mcp_server=False,
            theme=gr.themes.Default(**font),
        )
        host, port = listening.getsockname()[:2]
        print(f"open http://{host}:{port} in a browser; Ctrl-C ends it", flush=True)
        if not host.startswith("127."):
            print("everyone who reaches this machine can use the page", flush=True)
        config = uvicorn.Config(guarded(mounted), log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listening])


def build(names: list[str], folder: Path) -> Any:
    """The page, a `gradio.Blocks`. names: of the painters, see `painters.painters`. folder: for downloads."""
    import gradio as gr

    with gr.Blocks(title="Cascade", analytics_enabled=False, delete_cache=(300, _KEPT_S)) as page:
        gr.Markdown("# Cascade\nAnnotated microscopy images from drawings, populations and simulated organisms.")
        with gr.Tab("Draw"):
            _draw(names, folder)
        with gr.Tab("Population"):
            _population(names, folder)
        with gr.Tab("Simulate"):
            _simulate(names, folder)
        with gr.Tab("Your data"):
            _your_data()
        page.load(None, js=_TAKE_BRUSH)
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    return page


def _draw(names: list[str], folder: Path) -> None:
    import gradio as gr

    gr.Markdown(
        "Each stroke is a cell. Strokes of one colour that touch are one cell, of two colours two; a closed outline is "
        "filled. A pixel is as large as the model's, 0.65 µm for the embedded ones: nuclei are as wide as the brush. "
        "Or load a mask: a TIFF or PNG with an id for each cell."
    )
    with gr.Row():
        painter = gr.Dropdown(names, value=names[0], label="Painter")
        t_start = gr.Slider(0, 1000, 0, step=10, label="t_start: freedom from the sketch (0: the model's own)")
        steps = gr.Slider(0, 100, 0, step=1, label="Steps: quality (0: the model's own)")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
    with gr.Row():
        drawing = gr.ImageEditor(
            label="Cells",
            type="numpy",
            format="png",
            image_mode="RGBA",
            sources=(),
            transforms=(),
            layers=False,
            canvas_size=(320, 320),
            fixed_canvas=True,
            height=440,
            brush=gr.Brush(default_size=28, colors=list(COLOURS), color_mode="fixed"),
            eraser=gr.Eraser(default_size=28),
            elem_id="drawing",
        )
        image = gr.Image(label="Image", elem_id="image", **_SHOWN)
        labels = gr.Image(label="Labels", elem_id="labels", **_SHOWN)
    with gr.Row():
        paint = gr.Button("Paint", variant="primary", elem_id="paint", scale=1)
        said = _line("draw-said")
    file = gr.File(label="Or a mask", file_types=list(SUFFIXES), height=110, elem_id="mask")
    mask, made = _held(), _held()
    file.change(requests.in_one_line(requests.load_mask, 3), [file], [mask, labels, said], show_progress="minimal")
    painter.change(lambda name: gr.Slider(visible=painters.paints_sketches(name)), [painter], [t_start])
    given = [drawing, mask, painter, t_start, steps, seed]
    _when(paint, requests.paint, given, [image, labels, made, said])
    _download(made, said, folder)


def _population(names: list[str], folder: Path) -> None:
    import gradio as gr

    with gr.Row():
        with gr.Column():
            painter = gr.Dropdown(names, value=names[0], label="Painter")
            count = gr.Slider(1, 300, 40, step=1, label="Cells")
            clustering = gr.Slider(0, 1, 0.3, step=0.05, label="Clustering: 0 anywhere, 1 near to each other")
            side = gr.Slider(*requests.SIDES, 384, step=32, label="Canvas, pixels")
            seed = gr.Number(0, label="Seed", precision=0, minimum=0)
            bank = gr.Checkbox(True, label=f"Of a cascade: {painters.BANK} cells again and again, turned (fast)")
            make = gr.Button("Make", variant="primary", elem_id="populate")
            said = _line("population-said")
        with gr.Column():
            image = gr.Image(label="Image", elem_id="population", **_SHOWN)
            labels = gr.Image(label="Labels", **_SHOWN)
    made = _held()
    given = [painter, count, clustering, side, seed, bank]
    _when(make, requests.populate, given, [image, labels, made, said])
    _download(made, said, folder)


def _simulate(names: list[str], folder: Path) -> None:
    import gradio as gr

    about = [(f"{name}: {line}", name) for name, line in scenes.organisms().items()]
    looks = [("labels", "labels"), ("a sketch", "sketch"), ("painted, where it fits", "painted")]
    with gr.Row():
        organism = gr.Dropdown(about, value="nuclei", label="Organism", scale=2)
        look = gr.Radio(looks, value="labels", label="Show")
        painter = gr.Dropdown(names, value=names[0], label="Painter")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
    make = gr.Button("Simulate", variant="primary", elem_id="simulate")
    said = _line("simulate-said")
    picture = gr.Image(label="Of stacks: slices along z, y and x, and the projection", **_SHOWN | {"height": 520})
    made = _held()
    _when(make, requests.simulate, [organism, look, painter, seed], [picture, made, said])
    _download(made, said, folder)


def _your_data() -> None:
    import gradio as gr

    gr.Markdown(
        "Drop images with their masks, `x.tif` and `x_masks.tif`, one id for each cell, and see what would be learned "
        "from. The files are deleted as soon as they are read: drop them again to try other settings."
    )
    with gr.Row():
        with gr.Column():
            files = gr.File(label="Pairs", file_count="multiple", file_types=list(SUFFIXES), elem_id="pairs")
            with gr.Row():
                crop = gr.Number(0, label="Crop size, pixels (0: chosen)", precision=0)
                pixel = gr.Number(0, label="Pixel size to resample to, µm; 0 is the images' own")
            spacing = gr.Textbox("", label="Voxel size y x or z y x, µm; empty is as stored")
            sparse = gr.Checkbox(False, label="Some cells are not outlined")
            show = gr.Button("Show the crops", variant="primary", elem_id="look")
        with gr.Column():
            crops = gr.Image(label="Crops", elem_id="crops", **_SHOWN)
            command = gr.Textbox(label="Learn from them", buttons=["copy"], interactive=False, elem_id="command")
            notes = gr.Textbox(label="Used, and why not the rest", lines=4, interactive=False, elem_id="notes")
    _when(show, requests.look, [files, crop, pixel, spacing, sparse], [files, crops, command, notes])


def _when(button: Any, function: Callable[..., tuple[Any, ...]], given: list[Any], results: list[Any]) -> None:
    """What a button does; all networks take their turn."""
    button.click(requests.in_one_line(function, len(results)), given, results, concurrency_id="turn")


def _download(made: Any, said: Any, folder: Path) -> None:
    import gradio as gr

    with gr.Row():
        format = gr.Dropdown(list(requests.FORMATS), value="cellpose", label="Format", scale=1)
        ask = gr.Button("Pack image and labels", scale=1)
        file = gr.File(label="Download", interactive=False, height=70, scale=2)

    def packed(held: Any, name: str) -> tuple[str, str]:
        for old in folder.glob("download-*"):
            if time.time() - old.stat().st_mtime > _KEPT_S:
                for path in old.glob("*.zip"):
                    path.unlink(missing_ok=True)
        place = tempfile.mkdtemp(prefix="download-", dir=folder)
        return str(requests.download(held, name, Path(place))), f"packed for {name}"

    ask.click(requests.in_one_line(packed, 2), [made, format], [file, said])


def _line(name: str) -> Any:
    import gradio as gr

    return gr.Textbox(show_label=False, container=False, interactive=False, max_lines=2, scale=4, elem_id=name)


def _held() -> Any:
    """What a visitor's page holds, without a trace on disk."""
    import gradio as gr

    return gr.State(None, time_to_live=_KEPT_S)


def _each_upload_apart() -> None:
    """gradio keeps equal files in one place, where the first visitor's, once read and deleted, would be another's too:
    from here on each has its own."""
    from gradio.route_utils import GradioUploadFile

    usual = GradioUploadFile.__init__

    def started(self: Any, *given: Any, **named: Any) -> None:
        usual(self, *given, **named)
        self.sha.update(os.urandom(16))

    GradioUploadFile.__init__ = started


def guarded(site: Any) -> Any:
    """The same site, which tells browsers to fetch nothing from elsewhere, and takes no request beyond a size."""
    Send = Callable[[Any], Awaitable[None]]

    async def handle(scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return await site(scope, receive, send)

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY)]
            await send(message)

        sent = dict(scope["headers"]).get(b"content-length", b"0")
        if not sent.isdigit() or int(sent) > _MAX_REQUEST:
            await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
            return await send({"type": "http.response.body", "body": b""})
        await site(scope, receive, with_policy)

    return handle


def _listening(host: str, port: int) -> socket.socket:
    """A socket at this address. Raises ValueError where there is none to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise ValueError(f"{host}:{port} cannot be listened on ({error.strerror}): give another --port") from error
    return listening
