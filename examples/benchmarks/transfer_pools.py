"""Device pools of NASFLAT (Akhauri and Abdelfattah 2024, `device_task_list.py`) and HELP, plus two of our own."""

# ruff: noqa: E501 - a pool's devices read best side by side

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Source and target devices in one space; devices without a public table are left out when loaded."""

    space: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]


def _pool(space: str, sources: str, targets: str) -> Pool:
    return Pool(space=space, sources=tuple(sources.split()), targets=tuple(targets.split()))


_EDGE_TPU = "embedded_tpu_edge_tpu_int8"
_DSP_675, _DSP_855 = "mobile_dsp_snapdragon_675_hexagon_685_int8", "mobile_dsp_snapdragon_855_hexagon_690_int8"
_GPU_675, _GPU_855 = "mobile_gpu_snapdragon_675_adreno_612_int8", "mobile_gpu_snapdragon_855_adreno_640_int8"
_KRYO, _I7 = "mobile_cpu_snapdragon_855_kryo_485_int8", "desktop_cpu_core_i7_7820x_fp32"
_NANO16, _NANO32 = "embedded_gpu_jetson_nano_fp16", "embedded_gpu_jetson_nano_fp32"
_EAGLE_GPU = "desktop_gpu_gtx_1080ti_fp32"

POOLS: dict[str, Pool] = {
    "ND": _pool("nb201", "1080ti_1 1080ti_32 1080ti_256 silver_4114 silver_4210r samsung_a50 pixel3 essential_ph_1 samsung_s7",
                "titan_rtx_256 gold_6226 fpga pixel2 raspi4 eyeriss"),
    "N1": _pool("nb201", f"{_EDGE_TPU} eyeriss {_GPU_675} {_GPU_855} pixel3", "1080ti_1 titan_rtx_32 titanxp_1 2080ti_32 titan_rtx_1"),
    "N2": _pool("nb201", "1080ti_1 1080ti_32 titanx_32 titanxp_1 titanxp_32", f"{_NANO16} {_EDGE_TPU} {_DSP_675} {_DSP_855} pixel3"),
    "N3": _pool("nb201", f"{_EAGLE_GPU} {_NANO16} eyeriss {_DSP_675} {_GPU_855}", "1080ti_1 2080ti_1 titanxp_1 2080ti_32 titanxp_32"),
    "N4": _pool("nb201", f"{_I7} {_NANO32} {_EDGE_TPU} eyeriss {_KRYO} {_DSP_675} {_DSP_855} {_GPU_675} {_GPU_855} pixel2",
                "1080ti_1 2080ti_1 titan_rtx_1"),
    "NA": _pool("nb201", "titan_rtx_1 titan_rtx_32 titanxp_1 2080ti_1 titanx_1 1080ti_1 titanx_32 titanxp_32 2080ti_32 1080ti_32 "
                "gold_6226 samsung_s7 silver_4114 gold_6240 silver_4210r samsung_a50 pixel2", f"eyeriss {_EAGLE_GPU} {_EDGE_TPU}"),
    "FD": _pool("fbnet", "1080ti_1 1080ti_32 1080ti_64 silver_4114 silver_4210r samsung_a50 pixel3 essential_ph_1 samsung_s7", "fpga raspi4 eyeriss"),
    "F1": _pool("fbnet", "2080ti_1 essential_ph_1 silver_4114 titan_rtx_1 titan_rtx_32", "eyeriss fpga raspi4 samsung_a50 samsung_s7"),
    "F2": _pool("fbnet", "essential_ph_1 gold_6226 gold_6240 pixel3 raspi4", "1080ti_1 1080ti_32 2080ti_32 titan_rtx_1 titanxp_1"),
    "F3": _pool("fbnet", "essential_ph_1 pixel2 pixel3 raspi4 samsung_s7", "1080ti_1 1080ti_32 2080ti_1 titan_rtx_1 titan_rtx_32"),
    "F4": _pool("fbnet", "1080ti_64 2080ti_1 eyeriss gold_6226 gold_6240 raspi4 samsung_s7 silver_4210r titan_rtx_1 titan_rtx_32",
                "1080ti_1 pixel2 essential_ph_1"),
    "FA": _pool("fbnet", "1080ti_1 1080ti_32 1080ti_64 2080ti_1 2080ti_32 2080ti_64 titan_rtx_1 titan_rtx_32 titan_rtx_64 "
                "titanx_1 titanx_32 titanx_64 titanxp_1 titanxp_32 titanxp_64", "gold_6226 essential_ph_1 samsung_s7 pixel2"),
    "OFA": _pool("ofa", "2080ti_1 2080ti_32 2080ti_64 titan_xp_1 titan_xp_32 titan_xp_64 v100_1 v100_32 v100_64", "titan_rtx_1 titan_rtx_32 titan_rtx_64"),
    "EDGE": _pool("nb201", "1080ti_1 2080ti_32 gold_6226 silver_4114 pixel2 pixel3 raspi4 samsung_a50 samsung_s7 essential_ph_1 eyeriss fpga titan_rtx_256",
                  f"nnmeter_adreno640_gpu nnmeter_adreno630_gpu {_DSP_855} {_GPU_855} {_KRYO} {_EDGE_TPU} {_NANO16} {_NANO32} "
                  "hwnasbench_edgegpu_jetson_tx2 hwnasbench_edgetpu"),
}  # fmt: skip
