"""The learning rate through a run, section 5. Events are shares of the run and hold at any budget."""

import math
from dataclasses import dataclass, field
from typing import Any

from repro.config import Config, ScheduleKind, reached


@dataclass
class Schedule:
    """Learning rates by step. `plateau` alone has a state: what it has seen and how often it has dropped."""

    config: Config
    steps: int
    """Steps of the whole run."""
    drops: int = 0
    best: float = math.inf
    waited: int = 0
    announced: set[str] = field(default_factory=set)

    def lr(self, step: int) -> float:
        """Global learning rate of a step, counted from 0."""
        return self._before_drops(step) / self.config.schedule.divisor ** self._drops(step)

    def _before_drops(self, step: int) -> float:
        """The rate as warm-up and cosine make it."""
        warmup = self.config.optimizer.warmup_steps
        rate = self.config.lr * min(1.0, (step + 1) / warmup) if warmup else self.config.lr
        if self.config.schedule.kind is ScheduleKind.cosine:
            return rate * 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return rate

    def _drops(self, step: int) -> int:
        """Counts how often the rate has been divided; `cosine` never divides it."""
        schedule = self.config.schedule
        if schedule.kind is ScheduleKind.step:
            return sum(self._reached(step, share) for share in schedule.drops)
        return self.drops

    def conv1_factor(self, step: int) -> float:
        """conv1's rate over that of the other layers."""
        schedule = self.config.schedule
        if self._reached(step, schedule.conv1_freeze_at):
            return 0.0
        return 1 / schedule.divisor if self._reached(step, schedule.conv1_lower_at) else 1.0

    def _reached(self, step: int, share: float | None) -> bool:
        return reached(share, step, self.steps)

    def set_rates(self, groups: list[dict[str, Any]], step: int) -> None:
        """Writes the rate of every parameter group."""
        rate, conv1 = self.lr(step), self.conv1_factor(step)
        for group in groups:
            stays = group["bias"] and not self.config.schedule.drop_biases
            group["lr"] = (self._before_drops(step) if stays else rate) * group["lr_factor"]
            if group["layer"] == "conv1":
                group["lr"] *= conv1

    def observe(self, held_out_error: float) -> None:
        """Tells `plateau` the error in % on held-out images after an epoch; it drops when that stops improving."""
        if held_out_error < self.best:
            self.best, self.waited = held_out_error, 0
            return
        self.waited += 1
        if self.waited > self.config.schedule.patience and self.drops < self.config.schedule.max_drops:
            self.drops, self.waited = self.drops + 1, 0

    def events(self, step: int) -> list[str]:
        """Tells what has happened by this step and was not told before, in words, for the log and the curve."""
        schedule = self.config.schedule
        reached = {
            "conv1's learning rate lowered": self._reached(step, schedule.conv1_lower_at),
            "conv1 frozen": self._reached(step, schedule.conv1_freeze_at),
            "colour noise off": self._reached(step, self.config.augment.color_noise_off_at),
        }
        for number in range(1, self._drops(step) + 1):
            reached[f"learning rate divided by {schedule.divisor:g} ({number})"] = True
        news = [event for event, happened in reached.items() if happened and event not in self.announced]
        self.announced.update(news)
        return news

    def state(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps."""
        return {"drops": self.drops, "best": self.best, "waited": self.waited, "announced": sorted(self.announced)}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes what `state` gave."""
        self.drops, self.best, self.waited = state["drops"], state["best"], state["waited"]
        self.announced = set(state["announced"])
