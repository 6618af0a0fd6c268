# Every public name and the module that it lives in: `__init__.py` reads this list, and so do type checkers.
from threefold.assets import assets as assets
from threefold.data.check_verb import check_data as check_data
from threefold.data.face import Face as Face
from threefold.data.folds import deal_folds as deal_folds
from threefold.data.sources import read_faces as read_faces
from threefold.draw.dress import dress as dress
from threefold.draw.sample import sample as sample
from threefold.draw.synth import synth as synth
from threefold.errors import ThreefoldError as ThreefoldError
from threefold.evidence.compare import compare as compare
from threefold.evidence.metrics import accuracy as accuracy
from threefold.evidence.metrics import macro_f1 as macro_f1
from threefold.evidence.metrics import measure as measure
from threefold.export.export import export as export
from threefold.labels import AgeGroup as AgeGroup
from threefold.labels import Gender as Gender
from threefold.labels import Mask as Mask
from threefold.pages.compare_page import compare_runs as compare_runs
from threefold.pages.decide_page import decide as decide
from threefold.pages.eda_page import eda as eda
from threefold.pages.report import report as report
from threefold.pages.runs_page import runs as runs
from threefold.pages.shake_page import shake_runs as shake_runs
from threefold.pages.suspects_page import suspects as suspects
from threefold.photos.prepare import Prepare as Prepare
from threefold.predictions import Predictions as Predictions
from threefold.read.predict import predict as predict
from threefold.read.reader import Reader as Reader
from threefold.read.reader import Reading as Reading
from threefold.read.reader import load as load
from threefold.recipe import Recipe as Recipe
from threefold.recipe import load_recipe as load_recipe
from threefold.results import Result as Result
from threefold.runs import Run as Run
from threefold.serve.server import serve as serve
from threefold.train.ablate import ablate as ablate
from threefold.train.join import ensemble as ensemble
from threefold.train.pseudo import pseudo as pseudo
from threefold.train.search import search as search
from threefold.train.several import train_seeds as train_seeds
from threefold.train.show import show as show
from threefold.train.train import train as train
from threefold.watch.watch import watch as watch

__version__: str
__all__: list[str]
