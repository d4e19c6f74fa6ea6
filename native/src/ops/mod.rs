//! The kernels: one folder per op.
pub mod activation;
pub mod concat;
pub mod conv3d;
pub mod cosine;
pub mod densify;
pub mod elementwise;
pub mod gram;
pub mod maxpool;
pub mod norm;
pub mod ntxent;
pub mod optimizer;
pub mod pool;
pub mod reconstruction;
pub mod rows;
pub mod segmentation;
pub mod separable;
