//! Fused updates, one pass over memory, in stretches that do not depend on the number of cores.

use crate::ops::conv3d::direct::Shared;
use crate::ops::linear::factors::Factors;
use crate::ops::linear::pack::ask;
use crate::wide;
use rayon::prelude::*;
use std::ops::Range;

const STRETCH: usize = 1 << 14;

/// Constants of `vx_sgd_step`.
pub struct Sgd {
    pub lr: f32,
    pub momentum: f32,
    pub nesterov: bool,
    pub weight_decay: f32,
}

/// Constants of `vx_adamw_step`.
pub struct AdamW {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
}

/// Sum of squares in f64: stretches in parallel, 16 sums side by side in each, all added in order.
pub fn sum_of_squares(x: &[f32]) -> f64 {
    let parts: Vec<f64> = x
        .par_chunks(STRETCH)
        .map(|x| {
            let mut lanes = [0f64; 16];
            add_squares(x, &mut lanes);
            lanes.iter().sum()
        })
        .collect();
    parts.iter().sum()
}

wide! {
    fn add_squares(x: &[f32], lanes: &mut [f64; 16]) {
        let mut sums = *lanes;
        let rows = x.chunks_exact(16);
        let rest = rows.remainder();
        for row in rows {
            for (sum, &v) in sums.iter_mut().zip(row) {
                *sum += v as f64 * v as f64;
            }
        }
        sums.iter_mut().zip(rest).for_each(|(sum, &v)| *sum += v as f64 * v as f64);
        *lanes = sums;
    }
}

pub fn sgd(rule: &Sgd, factor: f32, p: &mut [f32], g: &[f32], state: &mut [f32]) {
    let &Sgd { lr, momentum, nesterov, weight_decay } = rule;
    wide! {
        fn update(rule: [f32; 4], nesterov: bool, p: &mut [f32], g: &[f32], m: &mut [f32]) {
            let [lr, momentum, weight_decay, factor] = rule;
            for ((p, g), m) in p.iter_mut().zip(g).zip(m) {
                let g = g * factor + weight_decay * *p;
                *m = momentum * *m + g;
                *p -= lr * if nesterov { g + momentum * *m } else { *m };
            }
        }
    }
    let values = p.par_chunks_mut(STRETCH).zip(g.par_chunks(STRETCH)).zip(state.par_chunks_mut(STRETCH));
    values.for_each(|((p, g), m)| update([lr, momentum, weight_decay, factor], nesterov, p, g, m));
}

/// First moment, second moment, and the largest second moment of amsgrad.
pub type Moments<'a> = (&'a mut [f32], &'a mut [f32], Option<&'a mut [f32]>);

impl AdamW {
    /// What `moments` and `moved` take, in the `step`-th step, of gradients times `factor`.
    pub fn at(&self, step: f32, factor: f32) -> [f32; 9] {
        let decay = (1.0 - self.lr * self.weight_decay) as f32;
        let (keep1, keep2) = (self.beta1 as f32, self.beta2 as f32);
        let (take1, take2) = ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32);
        let size = (self.lr / (1.0 - self.beta1.powf(step as f64))) as f32;
        let correction = (1.0 - self.beta2.powf(step as f64)).sqrt() as f32;
        [decay, keep1, keep2, take1, take2, size, correction, self.eps as f32, factor]
    }
}

pub fn adamw(rule: [f32; 9], p: &mut [f32], g: &[f32], (m, v, largest): Moments) {
    let values = p.par_chunks_mut(STRETCH).zip(g.par_chunks(STRETCH));
    let states = m.par_chunks_mut(STRETCH).zip(v.par_chunks_mut(STRETCH));
    match largest {
        None => values.zip(states).for_each(|((p, g), (m, v))| move_adamw(rule, p, g, m, v)),
        Some(top) => values.zip(states).zip(top.par_chunks_mut(STRETCH)).for_each(|(((p, g), (m, v)), top)| {
            move_amsgrad(rule, p, g, m, v, top);
        }),
    }
}

/// As `adamw`, of a gradient that is never whole in memory.
pub fn adamw_in_strips(rule: [f32; 9], p: &mut [f32], gradient: &Factors, (m, v, largest): Moments) {
    let top = largest.map(|top| Shared(top.as_mut_ptr()));
    let [p, m, v] = [p, m, v].map(|values| Shared(values.as_mut_ptr()));
    let soon = |part: Range<usize>| [&p, &m, &v].into_iter().chain(&top).for_each(|of| ask(of.0, part.clone()));
    gradient.strips(soon, |strip, g| {
        let part = |of: &Shared<f32>| unsafe { std::slice::from_raw_parts_mut(of.at(strip.start), strip.len()) };
        match &top {
            None => move_adamw(rule, part(&p), g, part(&m), part(&v)),
            Some(top) => move_amsgrad(rule, part(&p), g, part(&m), part(&v), part(top)),
        }
    });
}

/// Moments brought along by a gradient.
#[inline(always)]
fn moments([_, keep1, keep2, take1, take2, _, _, _, factor]: [f32; 9], g: f32, m: &mut f32, v: &mut f32) {
    let g = g * factor;
    *m = keep1 * *m + take1 * g;
    *v = keep2 * *v + take2 * g * g;
}

/// A parameter after its step.
#[inline(always)]
fn moved([decay, _, _, _, _, size, correction, eps, _]: [f32; 9], p: f32, m: f32, v: f32) -> f32 {
    p * decay - size * m / (v.sqrt() / correction + eps)
}

wide! {
    fn move_adamw(rule: [f32; 9], p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        for ((p, g), (m, v)) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
            moments(rule, *g, m, v);
            *p = moved(rule, *p, *m, *v);
        }
    }
}

wide! {
    fn move_amsgrad(rule: [f32; 9], p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], top: &mut [f32]) {
        for (((p, g), (m, v)), top) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)).zip(top) {
            moments(rule, *g, m, v);
            *top = top.max(*v);
            *p = moved(rule, *p, *m, *top);
        }
    }
}

pub fn ema(teacher: &mut [f32], student: &[f32], momentum: f64) {
    wide! {
        fn follow(t: &mut [f32], s: &[f32], keep: f32, take: f32) {
            t.iter_mut().zip(s).for_each(|(t, s)| *t = keep * *t + take * s);
        }
    }
    let (keep, take) = (momentum as f32, (1.0 - momentum) as f32);
    let pairs = teacher.par_chunks_mut(STRETCH).zip(student.par_chunks(STRETCH));
    pairs.for_each(|(t, s)| follow(t, s, keep, take));
}
