//! The native half of voxalign: tensors, convolution, masking, alignment losses and volume preparation.
//! It opens no file, no socket and no environment variable; bytes come in through `abi`.

#[macro_use]
pub mod abi;
pub mod device;
#[macro_use]
pub mod element;
pub mod gpu;
pub mod grid;
pub mod memory;
pub mod ops;
pub mod peak;
pub mod places;
pub mod queue;
pub mod random;
pub mod sample;
pub mod tensor;
pub mod volume;
