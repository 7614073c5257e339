"""Everything that made the shipped checkpoint `tiny`: scenes, questions, phases, evaluation."""
