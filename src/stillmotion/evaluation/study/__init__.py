"""The paper's user study: people rank the methods' clips side by side, without knowing which is whose."""

from typing import TYPE_CHECKING

from stillmotion.lazy import lazily

if TYPE_CHECKING:
    from stillmotion.evaluation.study.answers import Answer as Answer
    from stillmotion.evaluation.study.answers import Answers as Answers
    from stillmotion.evaluation.study.answers import read_answers as read_answers
    from stillmotion.evaluation.study.config import QUESTIONS as QUESTIONS
    from stillmotion.evaluation.study.config import StudyConfig as StudyConfig
    from stillmotion.evaluation.study.plan import Study as Study
    from stillmotion.evaluation.study.plan import plan_study as plan_study
    from stillmotion.evaluation.study.ranking import QuestionResult as QuestionResult
    from stillmotion.evaluation.study.ranking import StudyResult as StudyResult
    from stillmotion.evaluation.study.ranking import rank as rank
    from stillmotion.evaluation.study.server import StudyServer as StudyServer

NAMES = lazily(__name__)
