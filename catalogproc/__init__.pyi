# What type checkers and editors see of the package; __init__.py fetches each name when asked.
from catalogproc.catalog.export import export as export
from catalogproc.catalog.model import load_model as load_model
from catalogproc.catalog.opened import open_catalog as open_catalog
from catalogproc.catalog.records.verify import verify as verify
from catalogproc.cluster.start import run as run
from catalogproc.contract import load_contract as load_contract
from catalogproc.errors import CatalogprocError as CatalogprocError
from catalogproc.job import Job as Job
from catalogproc.job import load_job as load_job
from catalogproc.science.simulator.simulate import Simulator as Simulator
from catalogproc.sources.xp import read_spectra as read_spectra

__version__: str
