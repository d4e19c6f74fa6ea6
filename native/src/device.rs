//! What this machine offers.

exports! {
    /// Number of CPU threads that the kernels use.
    fn vx_cpu_threads() { Ok(rayon::current_num_threads() as f64) }
}
