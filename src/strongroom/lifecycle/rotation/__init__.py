"""Rotation of keys while the store is in use: waves of re-encryption, and how fast they may go."""

from strongroom.lifecycle.rotation._pace import Pace, TrafficMeter, TrafficView
from strongroom.lifecycle.rotation._waves import Host, Waves, WaveSettings

__all__ = ["Host", "Pace", "TrafficMeter", "TrafficView", "WaveSettings", "Waves"]
