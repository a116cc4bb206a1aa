#!/usr/bin/env bash
# optuna 4.5.0 and 5.0.0, scikit-learn 1.7.2.
# A study in which one categorical parameter decides nearly everything: the value is
# 10 for one of its three choices, plus a number between 0 and 1. The same call,
# get_param_importances(study), on the same trials ranks the two the other way round
# after an upgrade: 4.5 explains the variance of the values (fANOVA), 5.0 describes
# what separates the best tenth of the trials from the rest (PED-ANOVA). The best
# tenth needs a large number, and a third of the trials already has the right choice.
# With TPE, whose later trials nearly all have the right choice, its share falls to 0.
# Guess: both releases call the decisive parameter the more important one, as both
# evaluators are named ANOVA and their shares sum to 1.
# Seen: 4.5.0 choice 0.997, number 0.003; 5.0.0 choice 0.165, number 0.835;
# 5.0.0 with TPE choice 0.00, number 1.00. fANOVA in 5.0.0 still says 0.997.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat >study.py <<'PY'
import sys
import warnings

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

warnings.filterwarnings("ignore")
optuna.logging.set_verbosity(optuna.logging.ERROR)


def value(trial):
    choice = trial.suggest_categorical("choice", ["a", "b", "c"])
    return 10 * (choice == "a") + trial.suggest_float("number", 0, 1)


def shares(sampler, evaluator=None):
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(value, n_trials=300)
    return {name: round(float(share), 3) for name, share in get_param_importances(study, evaluator=evaluator).items()}


random = shares(optuna.samplers.RandomSampler(seed=0))
fanova = shares(optuna.samplers.RandomSampler(seed=0), FanovaImportanceEvaluator(seed=0))
tpe = shares(optuna.samplers.TPESampler(seed=0, multivariate=True, n_startup_trials=8))
print(optuna.__version__, "default", random, "default after TPE", tpe, "fANOVA", fanova)
assert fanova["choice"] > 0.9
if sys.argv[1] == "4.5.0":
    assert random["choice"] > 0.9 and tpe["choice"] > 0.9
else:
    assert random["choice"] < 0.3 and tpe["choice"] < 0.1
PY
for release in 4.5.0 5.0.0; do
  python3 -m venv "venv-$release"
  "venv-$release/bin/pip" install -q "optuna==$release" scikit-learn==1.7.2
  "venv-$release/bin/python" study.py "$release"
done
