//! Puts the CUDA kernels into the library: compiled by nvcc where one is found (release builds), and as text, for NVRTC.
//! Under the feature `shim` the kernels are compiled for the host instead and emulated.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An op that has kernels: its name, the file, the names of the kernels.
struct Source {
    op: String,
    path: PathBuf,
    kernels: Vec<String>,
}

/// The names after `extern "C" __global__ void`, with or without launch bounds.
fn kernel_names(text: &str) -> Vec<String> {
    let begin = "extern \"C\" __global__ void";
    let name = |after: &str| {
        let mut rest = after.trim_start();
        if let Some(bounded) = rest.strip_prefix("__launch_bounds__(") {
            rest = bounded.split_once(')').expect("a closed bound").1.trim_start();
        }
        rest.split_once('(').expect("parameters").0.to_string()
    };
    text.split(begin).skip(1).map(name).collect()
}

fn sources(root: &Path) -> Vec<Source> {
    let ops = root.join("src/ops");
    let mut list = Vec::new();
    for entry in fs::read_dir(&ops).expect("src/ops") {
        let op = entry.expect("an op").file_name().into_string().expect("a name");
        let path = ops.join(&op).join("kernel.cu");
        if let Ok(text) = fs::read_to_string(&path) {
            println!("cargo::rerun-if-changed={}", path.display());
            list.push(Source { op, path, kernels: kernel_names(&text) });
        }
    }
    list.sort_by(|a, b| a.op.cmp(&b.op));
    list
}

/// Compiles all kernels for the host, into a library that the crate is linked with.
fn emulated(root: &Path, out: &Path, sources: &[Source]) {
    let mut text = "#include \"device.cuh\"\n#include <unordered_map>\n#include \"driver.h\"\n".to_string();
    for Source { op, path, .. } in sources {
        text += &format!("namespace op_{op} {{\n#include {path:?}\n}}\n");
    }
    for Source { op, kernels, .. } in sources {
        for kernel in kernels {
            text += &format!("KNOWN(op_{op}, {kernel})\n");
        }
    }
    fs::write(out.join("kernels.cpp"), text).expect("kernels.cpp");
    let run = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).current_dir(out).status().expect(program);
        assert!(status.success(), "{program} does not compile the emulated kernels");
    };
    let compiler = env::var("CXX").unwrap_or_else(|_| "g++".into());
    let include = format!("-I{}", root.join("shim").display());
    let flags = ["-std=c++20", "-O3", "-fPIC", "-Wno-unknown-pragmas", &include];
    run(&compiler, &[&flags[..], &["-c", "kernels.cpp", "-o", "kernels.o"]].concat());
    run("ar", &["crs", "libkernels.a", "kernels.o"]);
    println!("cargo::rustc-link-search=native={}", out.display());
    println!("cargo::rustc-link-lib=static=kernels");
    println!("cargo::rustc-link-lib=dylib=stdc++");
}

/// nvcc on PATH or in the Python wheels; None where there is none that starts.
fn find_nvcc() -> Option<PathBuf> {
    let starts = |path: &Path| Command::new(path).arg("--version").output().is_ok_and(|o| o.status.success());
    let on_path = PathBuf::from("nvcc");
    if starts(&on_path) {
        return Some(on_path);
    }
    let script = "import importlib.util as u, pathlib\n\
        for w in u.find_spec('nvidia').submodule_search_locations:\n  print(*pathlib.Path(w).glob('*/bin/nvcc'), sep='\\n')";
    let found = Command::new("python3").args(["-c", script]).output().ok()?;
    let found = String::from_utf8(found.stdout).ok()?;
    found.lines().map(PathBuf::from).find(|path| starts(path))
}

/// Whether `made` is there and newer than all of `from`.
fn current(made: &Path, from: &[PathBuf]) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let made = time(made);
    made.is_some() && from.iter().all(|path| time(path) < made)
}

/// Compiles one op for sm_80, sm_90a and (as PTX) newer cards. False: the library then holds its text alone.
fn compiled(nvcc: &Path, include: &Path, source: &Source, image: &Path) -> bool {
    let headers = ["device.cuh", "ptx.cuh"].map(|name| include.join(name));
    if current(image, &[&headers[..], std::slice::from_ref(&source.path)].concat()) {
        return true;
    }
    let codes = ["arch=compute_80,code=[sm_80,compute_80]", "arch=compute_90a,code=sm_90a"];
    let mut line = Command::new(nvcc);
    line.args(["-fatbin", "-std=c++17", "-gencode", codes[0], "-gencode", codes[1], "-I"]).arg(include);
    let done = line.arg("-o").arg(image).arg(&source.path).output();
    match done {
        Ok(output) if output.status.success() => return true,
        Ok(output) => {
            println!("cargo::warning=nvcc: {:.300}", String::from_utf8_lossy(&output.stderr).replace('\n', " "))
        }
        Err(error) => println!("cargo::warning=nvcc: {error}"),
    }
    let _ = fs::remove_file(image);
    false
}

/// Writes kernels.rs: of each op the text with its headers, the image, and the names.
fn embedded(root: &Path, out: &Path, sources: &[Source]) {
    let include = root.join("shim");
    let read = |name: &str| fs::read_to_string(include.join(name)).expect(name);
    let headers = read("device.cuh").replace("#include \"ptx.cuh\"", &read("ptx.cuh")).replace("#pragma once", "");
    // Other builds (clippy, tests of the debug profile) launch nothing.
    let nvcc = if env::var("PROFILE").is_ok_and(|p| p == "release") { find_nvcc() } else { None };
    let images: Vec<PathBuf> = sources.iter().map(|s| out.join(format!("{}.fatbin", s.op))).collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    let lane = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let (Some(source), Some(nvcc)) = (sources.get(i), &nvcc) else { return done };
            done.push((i, compiled(nvcc, &include, source, &images[i])));
        }
    };
    let mut done = vec![false; sources.len()];
    std::thread::scope(|scope| {
        let lanes = std::thread::available_parallelism().map_or(1, |n| n.get());
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().flat_map(|l| l.join().expect("a compiler thread")).for_each(|(i, ok)| done[i] = ok);
    });
    let mut text = "static SOURCES: &[Source] = &[\n".to_string();
    for ((Source { op, path, kernels }, image), done) in sources.iter().zip(&images).zip(done) {
        let code = fs::read_to_string(path).expect("kernel.cu").replace("#include \"device.cuh\"", &headers);
        let image = if done { format!("include_bytes!({image:?})") } else { "&[]".into() };
        text += &format!("Source {{ op: {op:?}, text: {code:?}, image: {image}, kernels: &{kernels:?} }},\n");
    }
    fs::write(out.join("kernels.rs"), text + "];\n").expect("kernels.rs");
}

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let out = PathBuf::from(env::var("OUT_DIR").expect("set by cargo"));
    let sources = sources(&root);
    let emulates = env::var("CARGO_FEATURE_SHIM").is_ok();
    let more: &[&str] = if emulates { &["emulate.h", "driver.h"] } else { &["ptx.cuh"] };
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim/device.cuh");
    more.iter().for_each(|name| println!("cargo::rerun-if-changed=shim/{name}"));
    if emulates {
        emulated(&root, &out, &sources);
    } else {
        embedded(&root, &out, &sources);
    }
}
