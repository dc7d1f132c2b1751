"""A node as its tutorials put it together, in one file: pynetdicom, pydicom, torch, grad-cam, highdicom.

Written to work, and to be no slower than it needs to be: the model is loaded once, the object is saved as it came,
PDUs are large, Nagle's algorithm is off. Both results are sent before Success is answered. With `--one-view` it judges
the image once, as tutorials do; else it gives our node's answer, from all views. What it does not do, and ours does:
sync its files, remember what it acknowledged (a crash between two lines loses an image), try again where a destination
is away, check what it sends, refuse what it must not judge, bound memory and threads.

Its model is the default profile's weights with the usual means: torch in fp32 and the package grad-cam. Written as its
author would who knows the weights, and neither our predictor nor our runtime: the pixels are resized as floats, and
Grad-CAM goes forward and backward through the whole network.
"""

from __future__ import annotations

import argparse
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import highdicom as hd
import numpy as np
import torch
import torch.nn.functional as nnf
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.pixels.processing import apply_voi_lut
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.events import Event
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from benchmarks import destination, wire
from benchmarks.peers import PLAIN, TITLES
from cxr_node import resources
from cxr_node.model import profile, weights
from cxr_node.model.profile import Profile

PROFILE = "pneumonia-pediatric"
PNEUMONIA = hd.sr.CodedConcept("233604007", "SCT", "Pneumonia")
PROBABILITY = hd.sr.CodedConcept("probability", "99PLAIN", "Probability of pneumonia")


Float = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Calibrated probability, its spread over the views (0 where there is one), and the map on the source grid."""

    probability: float
    spread: float
    map: Float


class PlainModel:
    """Network and Grad-CAM, loaded once and kept open."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.network, _ = weights.load(profile.weights_path, profile.network, len(profile.labels))
        self.cam = GradCAM(model=self.network, target_layers=[self.network.get_submodule("trunk.18")])
        self.label = profile.operating_point.label
        self.targets = [ClassifierOutputTarget(profile.judged)]

    def answer(self, pixels: Float) -> Answer:
        """One view: forward and backward, as grad-cam does them, and the logit of the same forward pass."""
        small = self.map_of(self.placed([each[None] for each in self.prepared(pixels)]))
        return Answer(
            probability=float(self._calibrated(self.cam.outputs)[0]), spread=0.0, map=_on_source(small, pixels)
        )

    def same_answer(self, pixels: Float) -> Answer:
        """What the profile promises: the mean and the spread of its views, and the map of the plain one.

        The views need no gradient, so they go forward alone: quicker than all through grad-cam.
        """
        by_view, mean, small = self.seen(self.prepared(pixels))
        spread = float(by_view.max() - by_view.min())
        return Answer(probability=float(mean[0]), spread=spread, map=_on_source(small, pixels))

    def seen(self, plain: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, Float]:
        """Probabilities of the views, the calibrated mean, and the map, of one prepared image."""
        with torch.no_grad():
            logits = self.network(self.views(plain))
        return (
            self._calibrated(logits),
            self._calibrated(logits.mean(dim=0, keepdim=True)),
            self.map_of(self.placed([each[None] for each in plain])),
        )

    def seen_at_once(self, plain: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, Float]:
        """The same in one call of the package: simpler, and slower, for every view goes backward."""
        maps = self.cam(input_tensor=self.views(plain), targets=self.targets)
        logits = self.cam.outputs
        return self._calibrated(logits), self._calibrated(logits.mean(dim=0, keepdim=True)), maps[0]

    def map_of(self, shown: torch.Tensor) -> Float:
        """Grad-CAM of prepared images, (1, pictures, side_px, side_px) -> (side_px, side_px), peak 1."""
        found: Float = self.cam(input_tensor=shown, targets=self.targets)[0]
        return found

    def prepared(self, pixels: Float) -> list[torch.Tensor]:
        """Cut margins and border, average down, standardise: what the weights were trained on.

        The film squashed, (size_px, size_px), and in its shape where the network wants that, too: (rows, columns).
        """
        spec = self.profile.input
        if spec.margins == "cut":
            pixels = without_margins(pixels)
        rows, columns = pixels.shape
        low, high = spec.border, 1.0 - spec.border
        made = [resized(pixels, (spec.size_px, spec.size_px), (low * columns, low * rows, high * columns, high * rows))]
        if spec.shape_px is not None:
            side, most = spec.shape_px, max(rows, columns)
            size = tuple(side - 2 * round((side - side * each / most) / 2) for each in (rows, columns))
            made.append(resized(pixels, (size[0], size[1]), (0, 0, columns, rows)))
        return [standardised(each[None])[0] for each in made]

    def views(self, plain: Sequence[torch.Tensor]) -> torch.Tensor:
        """All views of an image: (views, pictures, side_px, side_px)."""
        return self.placed([views(each, self.profile.input.views) for each in plain])

    def placed(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """Lay a squashed film into its corner, one in its shape between bars: (views, pictures, side_px, side_px)."""
        spec, count = self.profile.input, len(parts[0])
        whole = torch.zeros(count, len(parts), spec.side_px, spec.side_px)
        whole[:, 0, : spec.size_px, : spec.size_px] = parts[0]
        for shaped in parts[1:]:
            top, left = ((spec.side_px - side) // 2 for side in shaped.shape[1:])
            whole[:, 1, top : top + shaped.shape[1], left : left + shaped.shape[2]] = shaped
        return whole

    def _calibrated(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.profile.slope * logits[:, self.profile.judged] + self.profile.intercept).detach()

    def scaled(self, activation: Float) -> Float:
        """Bring a feature map's cells to the size of the network's input, as the package does with its own."""
        size = (self.profile.input.side_px, self.profile.input.side_px)
        return cv2.resize(activation, size).astype(np.float32, copy=False)


def without_margins(pixels: Float) -> Float:
    """Cut rows and columns of one gray off the edges, at most a third at each."""
    for _ in range(2):
        blank = np.ptp(pixels, axis=1) <= 0.03
        most = len(blank) // 3
        first, last = (int(np.argmin([*each[:most], False])) for each in (blank, blank[::-1]))
        pixels = pixels[first : len(pixels) - last].T
    return np.ascontiguousarray(pixels)


def resized(pixels: Float, size: tuple[int, int], kept: tuple[float, float, float, float]) -> torch.Tensor:
    """Average down what is kept: left, upper, right, lower edge -> (rows, columns)."""
    return torch.from_numpy(np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR, box=kept)))


def standardised(images: torch.Tensor) -> torch.Tensor:
    """Clip to the central grey values, then mean 0 and standard deviation 1: (images, rows, columns)."""
    means = nnf.avg_pool2d(images[:, None], 2).flatten(1)
    low, high = torch.quantile(means, torch.tensor([0.02, 0.98]), dim=1)[:, :, None, None]
    clipped = images.clamp(low, high)
    deviation, centre = torch.std_mean(clipped, dim=(1, 2), correction=0, keepdim=True)
    return (clipped - centre) / deviation.clamp_min(1e-4)


def views(plain: torch.Tensor, wanted: Sequence[str]) -> torch.Tensor:
    """The film, and other views of it by name: (rows, columns) -> (views, rows, columns)."""
    image = plain[None, None]
    others = torch.cat([_CHANGES[name](image) for name in wanted[1:]])[:, 0]
    return torch.cat([plain[None], standardised(others)])


def _closer(image: torch.Tensor) -> torch.Tensor:
    down, across = (round(0.04 * side) for side in image.shape[-2:])
    inner = image[..., down:-down, across:-across]
    return nnf.interpolate(inner, size=image.shape[2:], mode="bilinear", align_corners=False)


def _blurred(image: torch.Tensor) -> torch.Tensor:
    return nnf.avg_pool2d(nnf.pad(image, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _brighter(image: torch.Tensor) -> torch.Tensor:
    return ((image - image.min()) / (image.max() - image.min())) ** 0.8


_CHANGES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "closer": _closer,
    "blurred": _blurred,
    "brighter": _brighter,
}


def _on_source(small: Float, pixels: Float) -> Float:
    return cv2.resize(small, pixels.shape[::-1]).astype(np.float32, copy=False)


class PlainNode:
    """Model, folder and destination; association threads share it, one at a time in the model."""

    def __init__(self, folder: Path, to: int, picture: tuple[int, int], *, one_view: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.to, self.picture = folder, to, picture
        model = PlainModel(profile.load(resources.profile_folder(PROFILE)))
        self.answer = model.answer if one_view else model.same_answer
        self.lock = threading.Lock()  # grad-cam keeps the activations of one image

    def store(self, event: Event) -> int:
        """EVT_C_STORE: save, judge, explain, send both results, answer Success."""
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        (self.folder / f"{dataset.SOPInstanceUID}.dcm").write_bytes(event.encoded_dataset())
        pixels = shown(dataset)
        with self.lock:
            answer = self.answer(pixels)
        self.send(report(dataset, answer))
        self.send(capture(dataset, overlay(pixels, answer, self.picture)))
        return 0x0000

    def send(self, result: Dataset) -> None:
        """One association for one result."""
        entity = AE(TITLES[PLAIN])
        entity.add_requested_context(result.SOPClassUID, result.file_meta.TransferSyntaxUID)
        association = entity.associate(
            "127.0.0.1", self.to, ae_title=destination.AE_TITLE, evt_handlers=[(evt.EVT_CONN_OPEN, nodelay)]
        )
        if association.is_established:
            association.send_c_store(result)
            association.release()


def shown(dataset: Dataset) -> NDArray[np.float32]:
    """Pixels as a viewer shows them, in [0, 1]."""
    windowed = np.asarray(apply_voi_lut(dataset.pixel_array, dataset), dtype=np.float32)
    scaled: NDArray[np.float32] = (windowed - windowed.min()) / max(float(np.ptp(windowed)), 1e-6)
    return 1.0 - scaled if dataset.PhotometricInterpretation == "MONOCHROME1" else scaled


def overlay(pixels: NDArray[np.float32], answer: Answer, picture: tuple[int, int]) -> NDArray[np.uint8]:
    """The radiograph under its map, (rows, columns, 3)."""
    size = picture[::-1]
    gray = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    found: NDArray[np.uint8] = show_cam_on_image(np.dstack([gray] * 3), cv2.resize(answer.map, size), use_rgb=True)
    return found


def report(dataset: Dataset, answer: Answer) -> Dataset:
    """A Comprehensive 3D SR after TID 1500: the probability, and where the map is hottest."""
    row, column = np.unravel_index(int(answer.map.argmax()), answer.map.shape)
    reach = 0.1 * min(answer.map.shape)
    corners = [(column - reach, row - reach), (column + reach, row - reach), (column + reach, row + reach)]
    corners = np.clip([*corners, (column - reach, row + reach), corners[0]], 0, answer.map.shape[::-1])
    source = hd.sr.SourceImageForRegion.from_source_image(dataset)
    region = hd.sr.ImageRegion(
        graphic_type=hd.sr.GraphicTypeValues.POLYLINE, graphic_data=np.asarray(corners, float), source_image=source
    )
    group = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid=generate_uid(), identifier="opacity"),
        referenced_region=region,
        finding_type=PNEUMONIA,
        measurements=[hd.sr.Measurement(PROBABILITY, 100.0 * answer.probability, codes.UCUM.Percent)],
    )
    device = hd.sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(uid=generate_uid()),
    )
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=device),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=[group],
    )
    return hd.sr.Comprehensive3DSR(
        evidence=[dataset],
        content=content[0],
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        manufacturer="plain",
        series_number=1,
        instance_number=1,
    )


def capture(dataset: Dataset, picture: NDArray[np.uint8]) -> Dataset:
    """A Secondary Capture of the overlay."""
    return hd.sc.SCImage.from_ref_dataset(
        ref_dataset=dataset,
        pixel_array=picture,
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        series_instance_uid=generate_uid(),
        sop_instance_uid=generate_uid(),
        manufacturer="plain",
        series_number=1,
        instance_number=1,
    )


def nodelay(event: Event) -> None:
    """EVT_CONN_OPEN: the same socket option that the others have."""
    connection: Any = event.assoc.dul.socket
    connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def main() -> None:
    """Serve until SIGTERM."""
    options = argparse.ArgumentParser(description=__doc__)
    for name in ("port", "to", "rows", "columns"):
        options.add_argument(f"--{name}", type=int, required=True)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--one-view", action="store_true")
    told = options.parse_args()
    node = PlainNode(told.folder, told.to, (told.rows, told.columns), one_view=told.one_view)
    entity = AE(TITLES[PLAIN])
    entity.supported_contexts = StoragePresentationContexts
    entity.add_supported_context(wire.VERIFICATION)
    entity.maximum_pdu_size = wire.MAX_PDU_BYTES
    handlers: list[Any] = [(evt.EVT_C_STORE, node.store), (evt.EVT_CONN_OPEN, nodelay)]
    entity.start_server(("127.0.0.1", told.port), evt_handlers=handlers)


if __name__ == "__main__":
    main()
