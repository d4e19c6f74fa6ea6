//! Fused updates, one pass over memory with the teacher's, in stretches that do not depend on the number of cores.

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

/// A teacher's values, and the share that it keeps of them.
pub struct Teacher<'a> {
    pub values: &'a mut [f32],
    pub momentum: f64,
}

pub fn sgd(rule: &Sgd, factor: f32, p: &mut [f32], g: &[f32], state: &mut [f32], teacher: Option<Teacher>) {
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
    let teacher = Follower::new(teacher);
    let values = p.par_chunks_mut(STRETCH).zip(g.par_chunks(STRETCH)).zip(state.par_chunks_mut(STRETCH));
    values.enumerate().for_each(|(i, ((p, g), m))| {
        update([lr, momentum, weight_decay, factor], nesterov, p, g, m);
        teacher.follow(i * STRETCH, p);
    });
}

/// First moment, second moment, and the largest second moment of amsgrad.
pub type Moments<'a> = (&'a mut [f32], &'a mut [f32], Option<&'a mut [f32]>);

/// Decay, what both moments keep and take, size, eps, factor of the gradient.
type Rule = [f32; 8];

impl AdamW {
    /// What `moments` and `moved` take, in the `step`-th step, of gradients times `factor`. The step is
    /// lr / (1 - beta1^t) m / (sqrt(v) / c + eps), c = sqrt(1 - beta2^t), by one division: m times a size / (sqrt(v) + eps c).
    pub fn at(&self, step: f32, factor: f32) -> Rule {
        let decay = (1.0 - self.lr * self.weight_decay) as f32;
        let (keep1, keep2) = (self.beta1 as f32, self.beta2 as f32);
        let (take1, take2) = ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32);
        let correction = (1.0 - self.beta2.powf(step as f64)).sqrt();
        let size = self.lr / (1.0 - self.beta1.powf(step as f64)) * correction;
        [decay, keep1, keep2, take1, take2, size as f32, (self.eps * correction) as f32, factor]
    }
}

/// The gradient of an update: its values, or the factors of one that is never whole in memory.
pub enum Gradient<'a> {
    Values(&'a [f32]),
    Factors(&'a Factors),
}

pub fn adamw(rule: Rule, p: &mut [f32], g: Gradient, (m, v, largest): Moments, teacher: Option<Teacher>) {
    let len = p.len();
    let teacher = Follower::new(teacher);
    let top = largest.map(|top| Shared(top.as_mut_ptr()));
    let [p, m, v] = [p, m, v].map(|values| Shared(values.as_mut_ptr()));
    let step = |strip: Range<usize>, g: &[f32]| {
        let part = |of: &Shared<f32>| unsafe { std::slice::from_raw_parts_mut(of.at(strip.start), strip.len()) };
        match &top {
            None => move_adamw(rule, part(&p), g, part(&m), part(&v)),
            Some(top) => move_amsgrad(rule, part(&p), g, part(&m), part(&v), part(top)),
        }
        teacher.follow(strip.start, part(&p));
    };
    match g {
        Gradient::Values(g) => {
            let stretch = |(i, g): (usize, &[f32])| step(i * STRETCH..len.min((i + 1) * STRETCH), g);
            g.par_chunks(STRETCH).enumerate().for_each(stretch);
        }
        Gradient::Factors(g) => {
            let teacher = teacher.0.as_ref().map(|(values, _)| values);
            let soon = |part: Range<usize>| {
                [&p, &m, &v].into_iter().chain(&top).chain(teacher).for_each(|of| ask(of.0, part.clone()));
            };
            g.strips(soon, step);
        }
    }
}

/// Moments brought along by a gradient.
#[inline(always)]
fn moments([_, keep1, keep2, take1, take2, _, _, factor]: Rule, g: f32, m: &mut f32, v: &mut f32) {
    let g = g * factor;
    *m = keep1 * *m + take1 * g;
    *v = keep2 * *v + take2 * g * g;
}

/// A parameter after its step.
#[inline(always)]
fn moved([decay, _, _, _, _, size, eps, _]: Rule, p: f32, m: f32, v: f32) -> f32 {
    p * decay - size * m / (v.sqrt() + eps)
}

wide! {
    fn move_adamw(rule: Rule, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        for ((p, g), (m, v)) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
            moments(rule, *g, m, v);
            *p = moved(rule, *p, *m, *v);
        }
    }
}

wide! {
    fn move_amsgrad(rule: Rule, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], top: &mut [f32]) {
        for (((p, g), (m, v)), top) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)).zip(top) {
            moments(rule, *g, m, v);
            *top = top.max(*v);
            *p = moved(rule, *p, *m, *top);
        }
    }
}

/// The part of a teacher that follows each stretch of its student while that is in the cache.
struct Follower(Option<(Shared<f32>, [f32; 2])>);

impl Follower {
    fn new(teacher: Option<Teacher>) -> Follower {
        Follower(teacher.map(|t| (Shared(t.values.as_mut_ptr()), [t.momentum as f32, (1.0 - t.momentum) as f32])))
    }
    /// Moves what lies beside `student`, which begins at `first`. Stretches of one student do not overlap.
    fn follow(&self, first: usize, student: &[f32]) {
        let Some((teacher, weights)) = &self.0 else { return };
        let teacher = unsafe { std::slice::from_raw_parts_mut(teacher.at(first), student.len()) };
        move_teacher(*weights, teacher, student);
    }
}

wide! {
    fn move_teacher(weights: [f32; 2], t: &mut [f32], s: &[f32]) {
        let [keep, take] = weights;
        t.iter_mut().zip(s).for_each(|(t, s)| *t = keep * *t + take * s);
    }
}

pub fn ema(teacher: Teacher, student: &[f32]) {
    let teacher = Follower::new(Some(teacher));
    student.par_chunks(STRETCH).enumerate().for_each(|(i, s)| teacher.follow(i * STRETCH, s));
}
