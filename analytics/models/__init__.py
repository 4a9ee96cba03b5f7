from analytics.models.ledger import BROKEN, AnalyticsEvent, MergedUser, UsageEvent
from analytics.models.rollups import (
    ActivityRollup,
    Milestone,
    OpenSession,
    Refusals,
    RollupDay,
    SessionRollup,
    SignUp,
    UsageRollup,
    UserDay,
)
