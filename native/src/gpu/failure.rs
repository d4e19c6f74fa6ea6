//! What is wrong with a GPU, said to the user.

/// Compute capability (80: 8.0) and CUDA version of the driver (12000: 12.0) that the kernels need.
pub const OLDEST_CARD: i32 = 80;
pub const OLDEST_DRIVER: i32 = 12000;

/// Why a card or its driver cannot be used, if it cannot.
pub fn refused(card: &str, architecture: i32, driver: i32) -> Option<String> {
    let version = |v: i32, one: i32, tenth: i32| format!("{}.{}", v / one, v % one / tenth);
    if architecture < OLDEST_CARD {
        return Some(format!(
            "{card} has compute capability {}, the kernels need {} (Ampere) or newer",
            version(architecture, 10, 1),
            version(OLDEST_CARD, 10, 1)
        ));
    }
    (driver < OLDEST_DRIVER).then(|| {
        format!(
            "the driver of {card} is made for CUDA {}, {} is needed; update the NVIDIA driver",
            version(driver, 1000, 10),
            version(OLDEST_DRIVER, 1000, 10)
        )
    })
}

/// The sentence for an error code of the CUDA driver.
pub fn sentence(code: u32) -> String {
    let text = match code {
        2 => "the memory of the GPU is used up; use a smaller --batch or --patch, or --recompute",
        3 | 4 => "the CUDA driver is shut down or was not started",
        34 => "the CUDA driver is the stub of the toolkit; install the NVIDIA driver",
        46 => "the GPU is in use by another program in exclusive mode",
        100 => "the CUDA driver finds no GPU on this machine; CUDA_VISIBLE_DEVICES may hide it",
        101 => "the CUDA driver does not know this GPU number",
        200 | 209 | 222 => "the compiled kernels do not fit this GPU or driver; update the NVIDIA driver",
        214 => "the GPU reports a memory error that it cannot correct; it needs a reset",
        304 => "the system denies access to the GPU",
        700 => "a kernel read or wrote outside its memory; this is a defect of voxalign",
        701 => "a kernel asks for more registers or shared memory than this GPU has",
        702 => "a kernel ran too long for the display's time limit",
        719 => "a kernel failed; this is a defect of voxalign or of the GPU",
        802 => "the GPU is not ready: the fabric manager of this machine is not running",
        803 => "the CUDA driver and its kernel module are of different versions; restart the machine",
        804 => "this GPU is not supported by the forward compatibility package that is installed",
        999 => "the CUDA driver fails for an unknown reason; restart it or the machine",
        _ => return format!("the CUDA driver reports error {code}"),
    };
    format!("{text} (CUDA error {code})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_sentence() {
        assert_eq!(refused("H200", 90, 12040), None);
        assert!(refused("T4", 75, 13000).unwrap().contains("compute capability 7.5, the kernels need 8.0"));
        assert!(refused("A100", 80, 11080).unwrap().contains("made for CUDA 11.8, 12.0 is needed"));
        assert!(sentence(100).contains("finds no GPU"));
        assert!(sentence(804).contains("(CUDA error 804)"));
        assert!(sentence(12345).contains("12345"));
        for code in [2, 3, 34, 46, 101, 200, 209, 214, 222, 304, 700, 701, 702, 719, 802, 803, 999] {
            let text = sentence(code);
            assert!(text.len() > 40 && text.len() < 200 && text.contains(&code.to_string()), "{text}");
        }
    }
}
