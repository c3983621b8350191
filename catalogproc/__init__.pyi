# What type checkers and editors see of the package; __init__.py fetches each name when asked.
from catalogproc.cluster.api import run as run
from catalogproc.contract import load_contract as load_contract
from catalogproc.errors import CatalogprocError as CatalogprocError
from catalogproc.evaluation.population import population as population
from catalogproc.export.export import export_catalog as export_catalog
from catalogproc.export.open_catalog import open_catalog as open_catalog
from catalogproc.inference.model import load_model as load_model
from catalogproc.inference.partition import map_partition as map_partition
from catalogproc.job import Job as Job
from catalogproc.job import load_job as load_job
from catalogproc.readers.xp import read_spectra as read_spectra
from catalogproc.rundir.verify import verify as verify
from catalogproc.simulation.simulator import Simulator as Simulator

__version__: str
