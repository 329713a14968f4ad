"""GPUs as XLA describes them to itself, for compiling where there is none.

The fields are those of XLA's `GpuTargetConfigProto`. Figures: NVIDIA H200 data sheet (bandwidth, memory), and CUDA C++
Programming Guide, table *Technical Specifications per Compute Capability*, column 9.0 (threads, registers, shared
memory); multiprocessors, clock and cache are those that NVIDIA states of the H100 SXM, which has the same processor
(*NVIDIA H100 Tensor Core GPU Architecture*, 2022).
"""

from __future__ import annotations

# By target.
TARGET_CONFIGS: dict[str, str] = {
    "h200": """
        platform_name: "CUDA"
        device_description_str: "NVIDIA H200"
        dnn_version_info { major: 9 minor: 10 }
        gpu_device_info {
          cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
          core_count: 132
          fpus_per_core: 128
          clock_rate_ghz: 1.98
          memory_bandwidth: 4800000000000
          device_memory_size: 141000000000
          l2_cache_size: 52428800
          threads_per_warp: 32
          threads_per_block_limit: 1024
          threads_per_core_limit: 2048
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
          registers_per_core_limit: 65536
          registers_per_block_limit: 65536
          shared_memory_per_block: 49152
          shared_memory_per_block_optin: 232448
          shared_memory_per_core: 233472
        }
    """,
}
