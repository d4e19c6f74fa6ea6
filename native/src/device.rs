//! What this machine offers.

exports! {
    /// Number of CUDA devices; an error says in one sentence why there is none.
    fn vx_cuda_devices() {
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err("no CUDA driver is installed on this machine".into());
        }
        cudarc::driver::CudaContext::device_count().map(|n| n as f64).map_err(|e| format!("the CUDA driver does not work: {e}"))
    }
    /// Number of CPU threads that the kernels use.
    fn vx_cpu_threads() { Ok(rayon::current_num_threads() as f64) }
}
