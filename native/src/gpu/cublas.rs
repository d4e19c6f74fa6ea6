//! Matrix products by cuBLASLt, where that library is found at run time. The product of `ops/linear` stays the one that judges.

use super::Product;
use crate::abi::Result;
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{self, cublasLtMatmulDescAttributes_t as Attribute, cudaDataType_t as Type};
use std::collections::HashMap;
use std::ffi::c_void;

/// Bytes that a product may work in (NVIDIA advises 32 MiB for Hopper).
const WORKSPACE: usize = 32 << 20;

/// How one shape is multiplied.
struct Plan {
    rule: sys::cublasLtMatmulDesc_t,
    /// Of a, b and c.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

/// The library, its working memory, and a plan for each shape; None: the library does not compute that one.
pub struct Lt {
    handle: sys::cublasLtHandle_t,
    workspace: u64,
    plans: HashMap<Product, Option<Plan>>,
}

fn told<T>(outcome: std::result::Result<T, CublasError>) -> Result<T> {
    outcome.map_err(|e| format!("cuBLASLt fails with {:?}", e.0))
}

/// The product without its addresses: what a plan depends on. A bias is there or not.
fn shape(p: &Product) -> Product {
    Product { a: 0, b: 0, c: 0, bias: (p.bias != 0) as u64, ..*p }
}

impl Lt {
    /// None: there is no such library.
    pub fn open() -> Result<Option<Lt>> {
        if !unsafe { sys::is_culib_present() } {
            return Ok(None);
        }
        let workspace = unsafe { cudarc::driver::result::malloc_sync(WORKSPACE) };
        let workspace = workspace.map_err(|e| super::failure::sentence(e.0 as u32))?;
        let handle = told(result::create_handle()).inspect_err(|_| {
            let _ = unsafe { cudarc::driver::result::free_sync(workspace) };
        })?;
        Ok(Some(Lt { handle, workspace, plans: HashMap::new() }))
    }
    pub fn multiplies(&mut self, product: &Product) -> bool {
        let (handle, key) = (self.handle, shape(product));
        self.plans.entry(key).or_insert_with(|| plan(handle, product).ok()).is_some()
    }
    pub fn run(&mut self, p: &Product, stream: cudarc::driver::sys::CUstream) -> Result<()> {
        let plan = self.plans.get(&shape(p)).and_then(Option::as_ref).ok_or("cuBLASLt has no plan for this product")?;
        let (one, zero) = (1f32, 0f32);
        let [a, b, c] = plan.layouts;
        let number = |v: &f32| v as *const f32 as *const c_void;
        unsafe {
            if p.bias != 0 {
                set(plan.rule, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias)?;
            }
            told(result::matmul(
                self.handle,
                plan.rule,
                number(&one),
                number(&zero),
                p.a as *const c_void,
                a,
                p.b as *const c_void,
                b,
                p.c as *const c_void,
                c,
                p.c as *mut c_void,
                c,
                &plan.algorithm,
                self.workspace as *mut c_void,
                WORKSPACE,
                stream.cast(),
            ))
        }
    }
}

/// Sets an attribute of a product. `value` must have the attribute's type.
unsafe fn set<T>(rule: sys::cublasLtMatmulDesc_t, attribute: Attribute, value: &T) -> Result<()> {
    let at = value as *const T as *const c_void;
    told(unsafe { result::set_matmul_desc_attribute(rule, attribute, at, size_of::<T>()) })
}

/// Asks the library for its way with a shape.
fn plan(handle: sys::cublasLtHandle_t, p: &Product) -> Result<Plan> {
    let rule = told(result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, Type::CUDA_R_32F))?;
    for (turned, attribute) in
        p.turned.into_iter().zip([Attribute::CUBLASLT_MATMUL_DESC_TRANSA, Attribute::CUBLASLT_MATMUL_DESC_TRANSB])
    {
        unsafe { set(rule, attribute, &(turned as i32))? }; // CUBLAS_OP_N is 0, CUBLAS_OP_T 1
    }
    if p.bias != 0 {
        let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS;
        unsafe { set(rule, Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue)? };
        unsafe { set(rule, Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias)? };
    }
    let [wide_a, wide_b] = p.columns();
    let of = |turned: bool, rows: usize, columns: usize| if turned { [columns, rows] } else { [rows, columns] };
    let layout = |[rows, columns]: [usize; 2], wide: usize, kind| {
        told(result::create_matrix_layout(kind, rows as u64, columns as u64, wide as i64))
    };
    let result_type = if p.single { Type::CUDA_R_32F } else { Type::CUDA_R_16BF };
    let layouts = [
        layout(of(p.turned[0], p.m, p.k), wide_a, Type::CUDA_R_16BF)?,
        layout(of(p.turned[1], p.k, p.n), wide_b, Type::CUDA_R_16BF)?,
        layout([p.m, p.n], p.m, result_type)?,
    ];
    let preference = told(result::create_matmul_pref())?;
    let most = sys::cublasLtMatmulPreferenceAttributes_t::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES;
    let bytes = &WORKSPACE as *const usize as *const c_void;
    let [a, b, c] = layouts;
    let found = unsafe {
        told(result::set_matmul_pref_attribute(preference, most, bytes, size_of::<usize>()))?;
        let found = told(result::get_matmul_algo_heuristic(handle, rule, a, b, c, c, preference));
        told(result::destroy_matmul_pref(preference))?;
        found?
    };
    Ok(Plan { rule, layouts, algorithm: found.algo })
}
