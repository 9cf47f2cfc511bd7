"""Node status: list what the node keeps, and put dead letters back."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import Step
from cxr.steps.node import Node

log = logging.getLogger(__name__)


class NodeStatus(Step):
    """List the images, reports and dead letters of the DICOM node, or put its dead letters back."""

    name: ClassVar[str] = "node_status"
    follows: ClassVar[str] = "node"
    sections: ClassVar[tuple[str, ...]] = ("node",)
    ignored_keys: ClassVar[frozenset[str]] = (Node.ignored_keys | set(Node.model_fields)) - {"folder"}

    folder: Annotated[Path, Field(description="Folder of the node's queue.")] = Path("artifacts/node")
    retry: Annotated[bool, Field(description="Put all dead letters back: they are answered or sent once more.")] = False

    def run(self) -> None:
        """Print the state; it names no patient and no UID."""
        from cxr.pacs.image_queue import ImageQueue
        from cxr.pacs.queue_listing import list_queue

        queue = ImageQueue(self.folder)
        queue.expect_folders()
        if self.retry:
            log.info("%d dead letters were put back", queue.retry_dead_letters())
        self.show(*list_queue(queue, time.time()))
