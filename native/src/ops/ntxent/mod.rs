//! NT-Xent with a teacher: normalised temperature-scaled cross entropy where all four views of an image are known.
//!
//! Contract. student, teacher `[n][c]`, unit rows, n even; teacher rows are rolled so that row k holds the other view.
//! R = [teacher; student] (2n rows), S = R R^T / temperature. Row i: the positive is column i +- n; columns i and
//! i +- n/2 (mod 2n) are left out; loss = mean over 2n rows of logsumexp(S_i) - S_i,positive. Only the student
//! receives a gradient, from the rows of both.

pub mod cpu;
pub mod launch;
pub mod reference;

use crate::{gpu, queue, tensor};

fn checked(n: u32, c: u32) -> crate::abi::Result<(usize, usize)> {
    if n < 4 || n % 2 == 1 || c == 0 {
        return Err(format!("batch: the contrastive loss needs an even number of views, 4 or more, not {n} of {c}"));
    }
    Ok((n as usize, c as usize))
}

/// The columns that row i leaves out.
pub fn left_out(i: usize, n: usize) -> [usize; 3] {
    [i, (i + n / 2) % (2 * n), (i + 2 * n - n / 2) % (2 * n)]
}

exports! {
    /// S = R R^T / temperature, `[2n][2n]`.
    fn vx_ntxent_similarity(student: u32, teacher: u32, n: u32, c: u32, temperature: f32) {
        let (n, c) = checked(n, c)?;
        let student = tensor::get(student, n * c, "contrastive student")?;
        let teacher = tensor::get(teacher, n * c, "contrastive teacher")?;
        let (s, handle) = tensor::make(4 * n * n);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::similarity(&student, &teacher, n, temperature, &s);
            }
            let rows = cpu::stack(teacher.values(), student.values());
            cpu::products(&rows, &rows, c, 1.0 / temperature, s.values_mut());
            Ok(())
        });
        Ok(handle)
    }
    /// The loss, one value, from S.
    fn vx_ntxent_loss(similarity: u32, n: u32) {
        let (n, _) = checked(n, 1)?;
        let s = tensor::get(similarity, 4 * n * n, "similarity")?;
        let (y, handle) = tensor::make(1);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::loss(&s, n, &y);
            }
            y.values_mut()[0] = cpu::loss(s.values(), n) as f32;
            Ok(())
        });
        Ok(handle)
    }
    /// Share of the 2n rows whose most similar row of those that count is the positive, from S. One value.
    fn vx_ntxent_accuracy(similarity: u32, n: u32) {
        let (n, _) = checked(n, 1)?;
        let s = tensor::get(similarity, 4 * n * n, "similarity")?;
        let (y, handle) = tensor::make(1);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::accuracy(&s, n, &y);
            }
            y.values_mut()[0] = cpu::accuracy(s.values(), n) as f32;
            Ok(())
        });
        Ok(handle)
    }
    /// Gradient of the student from that of the loss.
    fn vx_ntxent_grad(dy: u32, similarity: u32, student: u32, teacher: u32, n: u32, c: u32, temperature: f32) {
        let (n, c) = checked(n, c)?;
        let dy = tensor::get(dy, 1, "contrastive loss gradient")?;
        let s = tensor::get(similarity, 4 * n * n, "similarity")?;
        let student = tensor::get(student, n * c, "contrastive student")?;
        let teacher = tensor::get(teacher, n * c, "contrastive teacher")?;
        let (ds, handle) = tensor::make(n * c);
        queue::enqueue(move || {
            if gpu::active() {
                return launch::gradient([&dy, &s, &student, &teacher], n, c, temperature, &ds);
            }
            let rows = cpu::stack(teacher.values(), student.values());
            let factor = dy.values()[0] as f64 / (2 * n) as f64 / temperature as f64;
            cpu::gradient(s.values(), &rows, n, c, factor, ds.values_mut());
            Ok(())
        });
        Ok(handle)
    }
}
