//! The kernels: one folder per op.
pub mod conv3d;
pub mod cosine;
pub mod elementwise;
pub mod gram;
pub mod ntxent;
pub mod optimizer;
pub mod segmentation;
pub mod separable;
