"""The doctor and the engine on what real boxes say of themselves.

Instruction sets, WSL2's and Tegra's kernels and rocm-smi's lines are as the boxes' owners published them; the first box
is the project's own machine. The Xeon's instruction sets and the other kernels' names are typical ones, not of that
very box. What nvidia-smi says of cards is in test_doctor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import host_resources
import pytest
import settings as engine_settings
from doctor_checks import box_checks, gpu_checks
from doctor_checks.check_result import FAIL, OK, WARN

if TYPE_CHECKING:
    from pathlib import Path

ARM_82 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm"
ZEN_FLAGS = (
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht syscall nx "
    "mmxext fxsr_opt pdpe1gb rdtscp lm constant_tsc rep_good nopl xtopology nonstop_tsc cpuid extd_apicid pni "
    "pclmulqdq ssse3 fma cx16 pcid sse4_1 sse4_2 x2apic movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm "
    "cmp_legacy abm sse4a misalignsse 3dnowprefetch osvw topoext fsgsbase bmi1 avx2 smep bmi2 erms invpcid rdseed adx "
    "smap clflushopt clwb sha_ni xsaveopt xsavec xgetbv1 xsaves clzero vaes vpclmulqdq rdpid fsrm"
)


@dataclass(frozen=True)
class Box:
    """A box's own words, and what the doctor makes of its processor and its kernel for a CPU engine."""

    machine: str
    release: str
    flags: str
    processor: str
    kernel: str = OK

    @property
    def cpuinfo(self) -> str:
        name = "Features" if self.machine == "aarch64" else "flags"
        return f"processor\t: 0\nBogoMIPS\t: 108.00\n{name}\t\t: {self.flags}\n\nprocessor\t: 1\n{name}\t\t: none\n"


BOXES = {
    "AMD EPYC in Firecracker": Box("x86_64", "6.18.44-fc-v782", ZEN_FLAGS, OK),
    "Ryzen 9 9950X3D under WSL2": Box("x86_64", "6.6.87.2-microsoft-standard-WSL2", f"{ZEN_FLAGS} avx512f", OK),
    "Core i7 under an older WSL2": Box("x86_64", "5.10.16.3-microsoft-standard-WSL2", ZEN_FLAGS, OK),
    "WSL1": Box("x86_64", "4.4.0-19041-Microsoft", ZEN_FLAGS, OK, FAIL),
    "Xeon before AVX2": Box("x86_64", "5.15.0-91-generic", "fpu sse2 sse4_1 sse4_2 popcnt aes avx lm", FAIL),
    "Graviton2": Box("aarch64", "6.1.0-13-cloud-arm64", f"{ARM_82} lrcpc dcpop asimddp ssbs", WARN),
    "Graviton3": Box(
        "aarch64",
        "6.8.0-1009-aws",
        f"{ARM_82} jscvt fcma lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs "
        "paca pacg dcpodp svei8mm svebf16 i8mm bf16 dgh rng",
        OK,
    ),
    "Apple silicon, Linux in a virtual machine": Box(
        "aarch64",
        "6.10.14-linuxkit",
        f"{ARM_82} jscvt fcma lrcpc dcpop sha3 asimddp sha512 asimdfhm dit uscat ilrcpc flagm sb dcpodp flagm2 frint",
        WARN,
    ),
    "Jetson Orin (Cortex-A78AE)": Box(
        "aarch64", "5.10.120-rt70-tegra", f"{ARM_82} lrcpc dcpop asimddp uscat ilrcpc flagm", WARN
    ),
    "server of 320 cores (Armv9)": Box(
        "aarch64",
        "6.6.0-72.0.0.76.oe2403sp1.aarch64",
        f"{ARM_82} jscvt fcma lrcpc dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca "
        "pacg dcpodp flagm2 frint svei8mm svef32mm svef64mm svebf16 i8mm bf16 dgh rng ecv",
        OK,
    ),
    "Raspberry Pi 4 (Cortex-A72)": Box("aarch64", "6.1.0-rpi7-rpi-v8", "fp asimd evtstrm crc32 cpuid", FAIL),
    "Raspberry Pi 3 (Cortex-A53)": Box("aarch64", "5.4.0-1069-raspi", "fp asimd evtstrm crc32 cpuid", FAIL),
}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_box_is_judged_by_its_words(box: Box) -> None:
    [found] = box_checks.check_processor(on_gpu=False, machine=box.machine, cpuinfo=box.cpuinfo)
    assert found.verdict == box.processor, found
    [found] = box_checks.check_kernel(box.release)
    assert found.verdict == box.kernel, found
    # A card's engine needs no instruction of them.
    [found] = box_checks.check_processor(on_gpu=True, machine=box.machine, cpuinfo=box.cpuinfo)
    assert found.verdict == OK, found


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES.keys())
def test_engine_refuses_what_the_doctor_fails(box: Box) -> None:
    settings = engine_settings.read({"MODEL_ID": "a/b"})
    flags = host_resources.cpu_flags(box.cpuinfo)
    if box.processor == FAIL:
        with pytest.raises(engine_settings.SettingError, match="which vLLM needs"):
            engine_settings.check_cpu(settings, flags, box.machine)
    else:
        engine_settings.check_cpu(settings, flags, box.machine)


def test_other_processors_have_no_images() -> None:
    [found] = box_checks.check_processor(on_gpu=False, machine="riscv64", cpuinfo="isa : rv64imafdc")
    assert found.verdict == FAIL


# `rocm-smi --showproductname`.
MI300X = """
======================= ROCm System Management Interface =======================
GPU[0]          : Card Series: AMD Instinct MI300X
GPU[0]          : Card Model: 0x74a1
GPU[0]          : GFX Version: gfx942
GPU[1]          : Card Series: AMD Instinct MI300X
GPU[1]          : GFX Version: gfx942
"""
MI100 = "GPU[0]\t\t: Card series: \t\tAMD Instinct MI100\nGPU[0]\t\t: GFX Version: \t\tgfx908\n"
RX_6700 = "GPU[0]\t\t: Card Series: \t\tAMD Radeon RX 6700 XT\nGPU[0]\t\t: GFX Version: \t\tgfx1031\n"


@pytest.mark.parametrize(("seen", "verdicts"), [(MI300X, [OK, OK]), (MI100, [FAIL]), (RX_6700, [FAIL]), ("", [])])
def test_amd_card_is_one_that_the_image_knows(seen: str, verdicts: list[str]) -> None:
    found = list(gpu_checks.check_amd_cards(seen))
    assert [one.verdict for one in found] == verdicts
    assert all("AMD " in one.found and "gfx" in one.found for one in found)


def test_device_of_a_foreign_group_fails(tmp_path: Path) -> None:
    (tmp_path / "dev/dri").mkdir(parents=True)
    for node in ("dri/renderD128", "kfd"):
        (tmp_path / "dev" / node).touch(mode=0o660)
    own = str((tmp_path / "dev/kfd").stat().st_gid)
    devices = ["/dev/kfd", "/dev/dri"]
    assert [one.verdict for one in gpu_checks.check_devices(devices, {"video", own}, tmp_path)] == [OK]
    found = list(gpu_checks.check_devices(devices, {"video", "65533"}, tmp_path))
    assert [(one.verdict, one.fix) for one in found] == [(FAIL, f"RENDER_GID={own} in .env")] * 2
    (tmp_path / "dev/kfd").unlink()
    assert any("/dev/kfd is not there" in one.found for one in gpu_checks.check_devices(devices, {own}, tmp_path))
