//! The kernels: one folder per op.
pub mod conv3d;
pub mod elementwise;
