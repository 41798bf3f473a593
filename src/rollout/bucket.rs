//! Who is where: the bucket of a client with a key, stable for one rollout and unrelated between two.
//!
//! `bucket = hash(salt, key) mod 10000`. Not a cryptographic hash: a client that chooses its key chooses its color,
//! which it could also do by trying. Nothing of its cost or reach depends on the key.

use jiff::Timestamp;

use super::BUCKETS;

/// The bucket of a key that came with a request: a header's value, a cookie's, an address.
#[must_use]
pub fn bucket_of_key(salt: u64, key: &[u8]) -> u32 {
    // FNV-1a: stable in all versions, one multiplication a byte; `mix` repairs its weak low bits.
    let hash = key.iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
    });
    bucket_of_id(salt, hash)
}

/// The bucket of a number: what a cookie of ours holds.
#[must_use]
pub const fn bucket_of_id(salt: u64, id: u64) -> u32 {
    // Below 10,000, so the narrowing loses nothing.
    (mix(id ^ salt) % BUCKETS as u64) as u32
}

/// An id whose bucket, under this salt, is `bucket`; which of the many is `noise`'s choice.
///
/// So a new client's cookie can be given the bucket that the even sequence has next: `mix` can be undone.
#[must_use]
pub const fn id_in_bucket(salt: u64, bucket: u32, noise: u64) -> u64 {
    let buckets = BUCKETS as u64;
    // The topmost incomplete run of buckets is left out, so that the sum does not overflow.
    let run = noise % (u64::MAX / buckets);
    unmix(run * buckets + bucket as u64) ^ salt
}

/// The salt of the next rollout: another one each time, so that it is not always the same clients who go first.
#[must_use]
pub fn next_salt(salt: u64, generation: u64, now: Timestamp) -> u64 {
    let nanos = now.as_nanosecond();
    // Both halves of the clock's number; what is cut off is in the other one.
    let clock = (nanos as u64) ^ ((nanos >> 64) as u64);
    mix(mix(salt ^ generation).wrapping_add(clock))
}

/// Spread a number over all bits: the finaliser of splitmix64, a bijection.
const fn mix(mut n: u64) -> u64 {
    n = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    n = (n ^ (n >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    n ^ (n >> 31)
}

/// What [`mix`] makes `n` of.
const fn unmix(mut n: u64) -> u64 {
    n = n ^ (n >> 31) ^ (n >> 62);
    n = n.wrapping_mul(inverse(0x94D0_49BB_1331_11EB));
    n = n ^ (n >> 27) ^ (n >> 54);
    n = n.wrapping_mul(inverse(0xBF58_476D_1CE4_E5B9));
    n = n ^ (n >> 30) ^ (n >> 60);
    n.wrapping_sub(0x9E37_79B9_7F4A_7C15)
}

/// The number that multiplied with this odd one gives 1 (Newton's iteration doubles the right bits each time).
const fn inverse(odd: u64) -> u64 {
    let mut is = odd;
    let mut round = 0;
    while round < 5 {
        is = is.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(is)));
        round += 1;
    }
    is
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rollout::{Phase, Weight, is_candidate};

    proptest! {
        #[test]
        fn mixing_can_be_undone(n: u64) {
            prop_assert_eq!(unmix(mix(n)), n);
        }

        #[test]
        fn an_id_is_in_the_bucket_it_was_made_for(salt: u64, bucket in 0..BUCKETS, noise: u64) {
            prop_assert_eq!(bucket_of_id(salt, id_in_bucket(salt, bucket, noise)), bucket);
        }

        #[test]
        fn any_key_has_a_bucket(salt: u64, key: Vec<u8>) {
            prop_assert!(bucket_of_key(salt, &key) < BUCKETS);
        }
    }

    #[test]
    fn keys_fill_the_buckets_evenly_whatever_the_salt() {
        let weight = Weight::candidate(20).unwrap();
        for salt in [0, 1, 0xDEAD_BEEF] {
            let hits = (0..100_000)
                .filter(|n| {
                    let key = format!("user-{n}@example.com");
                    is_candidate(bucket_of_key(salt, key.as_bytes()), weight)
                })
                .count();
            assert!(
                (19_500..=20_500).contains(&hits),
                "salt {salt}: {hits} of 100,000"
            );
        }
    }

    #[test]
    fn another_rollout_chooses_other_clients() {
        let weight = Weight::candidate(50).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let salt = next_salt(0, 1, now);
        let other = next_salt(salt, 2, now);
        assert_ne!(salt, other);
        // Ids drawn for the first rollout, as the cookies of it hold them.
        let mut phase = Phase::of_worker(0, 1);
        let ids: Vec<_> = (0..10_000)
            .map(|noise| id_in_bucket(salt, phase.next_bucket(), mix(noise)))
            .collect();
        let first = |id: &&u64| is_candidate(bucket_of_id(salt, **id), weight);
        let second = |id: &&u64| is_candidate(bucket_of_id(other, **id), weight);
        assert!((4_990..=5_010).contains(&ids.iter().filter(first).count()));
        let both = ids.iter().filter(first).filter(second).count();
        assert!(
            (2_300..=2_700).contains(&both),
            "{both} of 5,000 were chosen twice"
        );
    }
}
