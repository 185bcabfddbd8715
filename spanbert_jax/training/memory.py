"""What a process uses of its host's memory and of its devices', for the metrics."""

from pathlib import Path

import jax


def memory_in_use() -> dict[str, int]:
    """Bytes: "host_memory_bytes", resident; where devices have memory of their own, "device_memory_bytes" and "device_memory_peak_bytes" of the fullest."""
    status = Path("/proc/self/status")  # of Linux
    resident = (
        [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmRSS")]
        if status.exists()
        else []
    )
    of_devices = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
    told = {"host_memory_bytes": int(resident[0]) * 1024} if resident else {}
    for name, key in (("device_memory_bytes", "bytes_in_use"), ("device_memory_peak_bytes", "peak_bytes_in_use")):
        if of_devices and key in of_devices[0]:
            told[name] = max(stats[key] for stats in of_devices)
    return told
