//! Self-test of the layouts of warp matrices: on the GPU alone. `lib/gpu/fragments.ts` knows what has to come out.

use crate::abi::Result;
use crate::tensor::{self, Tensor};
use crate::{gpu, launch, queue};

/// Values of a, of b and of the result, for each of the tests.
const SIZES: [[usize; 3]; 6] =
    [[256, 1, 256], [256, 1, 256], [256, 128, 128], [256, 1, 256], [1024, 1536, 6144], [1024, 1536, 6144]];

fn run(test: usize, a: &Tensor, b: &Tensor, out: &Tensor) -> Result<()> {
    let (x, y, to) = (a.device(), b.device(), out.device_mut());
    match test {
        0 | 1 => launch!("fragments_load", [1; 3], 32, 512, x, test as i32, to),
        2 => launch!("fragments_product", [1; 3], 32, 0, x, y, to),
        3 => launch!("fragments_copy", [1; 3], 32, 512, x, to),
        4 => launch!("fragments_wgmma", [1; 3], 128, 5120, x, y, to),
        _ => launch!("fragments_wgmma_turned", [1; 3], 128, 5440, x, y, to),
    }
}

exports! {
    /// Runs test 0 (ldmatrix), 1 (ldmatrix, transposed), 2 (mma.sync), 3 (cp.async), 4 (wgmma) or 5 (wgmma, turned
    /// factors) on the bf16 tensors `a` and `b` (one value where the test needs none): what lies where, as f32.
    fn vx_fragments(test: u32, a: u32, b: u32) {
        let [of_a, of_b, values] = *SIZES.get(test as usize).ok_or("there are the tests 0 to 5")?;
        if test >= 4 && !gpu::card().hopper {
            return Err("this GPU has no wgmma".into());
        }
        let a = tensor::get_as(a, of_a, "a", crate::element::Dtype::Bf16)?;
        let b = tensor::get_as(b, of_b, "b", crate::element::Dtype::Bf16)?;
        let (out, handle) = tensor::make(values);
        queue::enqueue(move || if gpu::active() { run(test as usize, &a, &b, &out) } else { Err("no GPU is in use".into()) });
        Ok(handle)
    }
}
