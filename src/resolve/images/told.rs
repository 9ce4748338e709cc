//! Rooms in the place of a registry that fails.

use std::sync::Arc;

use futures_lite::future;

use crate::eco::oci::repository_purl;

use super::super::rooms::{PATIENCE, Told, image, tellers};
use super::super::{LOCK, State, is_answer};
use super::{Fact, First, ImagesError, Inner, Question, Said, Spot};

impl Inner {
    /// What is said where nothing is known that could be served: the registry is asked. Where it fails a room stands
    /// in, at once for one that failed a moment ago.
    pub(super) async fn find_out(
        self: &Arc<Self>,
        spot: &Spot,
        question: &Question,
        since: Option<u64>,
        demanded: bool,
        first: First,
    ) -> Result<Said, ImagesError> {
        if self.offline {
            let said = self.told(spot, question, "dpm runs with --offline").await;
            return said.unwrap_or_else(|| Err(ImagesError::Offline(self.what(spot, question))));
        }
        let key = self.key(spot, question);
        if !demanded
            && self.failed_lately(&key)
            && let Some(said) = self.told(spot, question, "its registry failed just now").await
        {
            return said;
        }
        let mut asking = std::pin::pin!(self.asked(spot, question, since, first));
        let soon = future::or(async { Some((&mut asking).await) }, async {
            async_io::Timer::after(PATIENCE).await;
            None
        });
        let answer = match soon.await {
            Some(answer) => answer,
            None => match self.told(spot, question, "its registry takes too long").await {
                Some(said) => {
                    self.memory.lock().expect(LOCK).fail(&key, self.parts.clock.now());
                    return said;
                }
                None => asking.await,
            },
        };
        match answer {
            Ok(fact) => Ok(self.said(fact, State::Miss)),
            Err(e) if e.leaves_names_to_rooms() => {
                self.told(spot, question, &e.to_string()).await.unwrap_or(Err(e))
            }
            Err(e) => Err(e),
        }
    }

    /// What rooms say. Never of a registry that is kept apart.
    async fn told(&self, spot: &Spot, question: &Question, why: &str) -> Option<Result<Said, ImagesError>> {
        let registry = &self.registries[spot.registry];
        if registry.private {
            return None;
        }
        for host in &registry.hosts {
            let Ok(package) = repository_purl(host, &spot.repository) else { continue };
            let Some(known) = self.rooms.ask(package).await else { continue };
            let told = match image(&known, &spot.repository, question) {
                Some(Ok(told)) => told,
                Some(Err(dispute)) => return Some(Err(ImagesError::Disputed(dispute))),
                None => continue,
            };
            log::warn!(
                "{}: as members of rooms say, for {why}: {}",
                self.what(spot, question),
                tellers(&known)
            );
            let age = u64::try_from(known.age.as_millis()).unwrap_or(u64::MAX);
            let checked_at = self.parts.clock.now().0.saturating_sub(age);
            let fact = Arc::new(self.fact_told(spot, question, told, checked_at));
            return Some(Ok(self.said(fact, State::Room)));
        }
        None
    }

    fn fact_told(&self, spot: &Spot, question: &Question, told: Told, checked_at: u64) -> Fact {
        let Told { digest, media_type, size, body } = told;
        let media_type = media_type.or_else(|| (!body.is_empty()).then(|| "application/json".to_owned()));
        Fact {
            found: true,
            digest,
            media_type,
            size,
            body,
            link: None,
            filters_applied: None,
            checked_at,
            fresh_millis: 0,
            upstream: self.registries[spot.registry].site.name.clone(),
            url: self.question_url(spot, question).to_string(),
        }
    }
}

impl ImagesError {
    fn leaves_names_to_rooms(&self) -> bool {
        match self {
            Self::Upstream(e) => !is_answer(e),
            Self::Answer { .. } => true,
            _ => false,
        }
    }
}
