//! Two passes: sums per sample and class, then (for the gradient) one row at a time.

use super::Shape;
use crate::abi::Result;
use rayon::prelude::*;

const SMOOTH: f64 = 1e-5;
/// Voxels of one stretch.
const STRETCH: usize = 4096;

/// p = softmax(z); returns logsumexp(z).
fn softmax(z: &[f32], p: &mut [f32]) -> f64 {
    let top = z.iter().fold(f32::NEG_INFINITY, |m, &v| m.max(v));
    p.iter_mut().zip(z).for_each(|(p, z)| *p = (z - top).exp());
    let sum: f32 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= sum);
    top as f64 + (sum as f64).ln()
}

pub fn softmax_rows(x: &[f32], classes: usize, y: &mut [f32]) {
    y.par_chunks_mut(classes).zip(x.par_chunks(classes)).with_min_len(STRETCH).for_each(|(y, x)| {
        softmax(x, y);
    });
}

/// sum pG, sum p, sum G per class, and the summed cross entropy.
#[derive(Clone)]
struct Sums {
    both: Vec<f64>,
    p: Vec<f64>,
    g: Vec<f64>,
    entropy: f64,
}

impl Sums {
    fn new(classes: usize) -> Sums {
        Sums { both: vec![0.0; classes], p: vec![0.0; classes], g: vec![0.0; classes], entropy: 0.0 }
    }
    fn add(&mut self, other: &Sums) {
        for (a, b) in [(&mut self.both, &other.both), (&mut self.p, &other.p), (&mut self.g, &other.g)] {
            a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        }
        self.entropy += other.entropy;
    }
    /// 2 sum pG + s and sum p + sum G + s of a class.
    fn ratio(&self, c: usize) -> (f64, f64) {
        (2.0 * self.both[c] + SMOOTH, self.p[c] + self.g[c] + SMOOTH)
    }
}

fn class_of(label: f32, classes: usize) -> Result<usize> {
    let class = label as usize;
    if class as f32 != label || class >= classes {
        return Err(format!("labels: {label} is not one of the {classes} classes of the network"));
    }
    Ok(class)
}

/// An error for the first label that is no class.
pub fn check_labels(labels: &[f32], classes: usize) -> Result<()> {
    labels.par_iter().with_min_len(STRETCH).try_for_each(|&label| class_of(label, classes).map(|_| ()))
}

/// Sums per sample; one entry for all of them with batch Dice.
fn sums(s: &Shape, z: &[f32], labels: &[f32]) -> Result<Vec<Sums>> {
    let stretch = |(z, labels): (&[f32], &[f32])| -> Result<Sums> {
        let mut sums = Sums::new(s.classes);
        let mut p = vec![0f32; s.classes];
        for (z, &label) in z.chunks_exact(s.classes).zip(labels) {
            let class = class_of(label, s.classes)?;
            sums.entropy += softmax(z, &mut p) - z[class] as f64;
            sums.p.iter_mut().zip(&p).for_each(|(sum, &p)| *sum += p as f64);
            sums.both[class] += p[class] as f64;
            sums.g[class] += 1.0;
        }
        Ok(sums)
    };
    let mut samples = Vec::new();
    for (z, labels) in z.chunks_exact(s.voxels * s.classes).zip(labels.chunks_exact(s.voxels)) {
        let parts = z.par_chunks(STRETCH * s.classes).zip(labels.par_chunks(STRETCH)).map(stretch);
        let mut total = Sums::new(s.classes);
        parts.collect::<Result<Vec<_>>>()?.iter().for_each(|part| total.add(part));
        samples.push(total);
    }
    if s.batch_dice {
        let rest = samples.split_off(1);
        rest.iter().for_each(|part| samples[0].add(part));
    }
    Ok(samples)
}

pub fn loss(s: &Shape, z: &[f32], labels: &[f32]) -> Result<f64> {
    let sums = sums(s, z, labels)?;
    let dice =
        |sums: &Sums| (1..s.classes).map(|c| sums.ratio(c)).map(|(a, b)| a / b).sum::<f64>() / (s.classes - 1) as f64;
    let entropy = sums.iter().map(|sums| sums.entropy).sum::<f64>() / s.rows() as f64;
    Ok(entropy - s.dice as f64 * sums.iter().map(dice).sum::<f64>() / sums.len() as f64)
}

pub fn gradient(s: &Shape, z: &[f32], labels: &[f32], dy: f64, dz: &mut [f32]) -> Result<()> {
    let sums = sums(s, z, labels)?;
    let share = dy * s.dice as f64 / (sums.len() * (s.classes - 1)) as f64;
    // d loss / d p_c is plain[c], and hit[c] more where the label is c.
    let slopes: Vec<(Vec<f32>, Vec<f32>)> = sums
        .iter()
        .map(|sums| {
            let slope = |c: usize| match c {
                0 => (0.0, 0.0),
                _ => {
                    let (a, b) = sums.ratio(c);
                    ((share * a / (b * b)) as f32, (-2.0 * share / b) as f32)
                }
            };
            (0..s.classes).map(slope).unzip()
        })
        .collect();
    let entropy = (dy / s.rows() as f64) as f32;
    let size = s.voxels * s.classes;
    for (k, (dz, z)) in dz.chunks_exact_mut(size).zip(z.chunks_exact(size)).enumerate() {
        let (plain, hit) = &slopes[k.min(slopes.len() - 1)];
        let labels = &labels[k * s.voxels..][..s.voxels];
        let rows = dz.par_chunks_mut(s.classes).zip(z.par_chunks(s.classes)).zip(labels.par_iter());
        rows.with_min_len(STRETCH).for_each_init(
            || vec![0f32; s.classes],
            |p, ((dz, z), &label)| {
                softmax(z, p);
                let class = label as usize;
                let along: f32 = p.iter().zip(plain).map(|(p, d)| p * d).sum::<f32>() + p[class] * hit[class];
                for c in 0..s.classes {
                    let own = if c == class { 1.0 } else { 0.0 };
                    dz[c] = p[c] * (plain[c] + own * hit[c] - along) + entropy * (p[c] - own);
                }
            },
        );
    }
    Ok(())
}
