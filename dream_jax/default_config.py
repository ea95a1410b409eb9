"""The fields every config has, with their defaults; a file in `configs/` starts here and changes what it studies."""

from typing import Any

from ml_collections import ConfigDict, config_dict


# Any: what pyright infers for the fields of a ConfigDict is a union of everything a config may hold.
def get_default() -> Any:
  """A fresh ConfigDict; `data.name`, `name` and `protocols` are the caller's to set."""
  config = ConfigDict()
  config.name = ''  # names the default workdir and the report
  config.seed = 0  # first seed; run i has seed + i
  config.num_seeds = 10  # trained together in one compiled program

  config.data = ConfigDict()
  config.data.name = ''  # data set; --mode=list shows them
  config.data.tfds_dir = config_dict.placeholder(str)  # prepared data sets (default: ~/tensorflow_datasets)
  config.data.manual_dir = config_dict.placeholder(str)  # files you downloaded yourself
  config.data.dir = config_dict.placeholder(str)  # a folder of your own data, for data.name = 'folder'
  config.data.options = ConfigDict()  # options of the data set

  config.model = ConfigDict()
  config.model.name = 'dream'  # the method under study
  config.model.width = 32  # latent width of every modality
  config.model.hidden = 64  # hidden width of heads and other perceptrons
  config.model.sequence_encoder = 'tcn'  # 'tcn' or 'transformer'
  config.model.max_tokens = 0  # most tokens a modality in methods that attend to tokens; 0: what encoders leave
  config.model.dropout = 0.2  # on latents
  config.model.head_dropout = 0.3  # inside prediction heads
  config.model.dtype = 'float32'  # of encoders and attention over tokens: 'float32' or 'bfloat16'; all else is float32
  config.model.evidence_scale = 1.0  # of what unimodal heads say: the smaller, the slower they learn
  config.model.recognise = True  # estimate which slots hold real content
  config.model.agreement = True  # let modalities testify about each other
  config.model.typicality = True  # know the second moments of real features before training
  config.model.assess = True  # estimate contributions
  config.model.game = 'expected'  # worth of a coalition: 'expected' probability of the target, or 'certainty'
  config.model.credit = 'shapley'  # what a modality gets of it: 'shapley', 'leave_one_out' or 'confidence' (alone)
  config.model.sharpness = 0.5  # exponent of the estimated shares in the soft mask; 0 leaves presence alone
  config.model.reconstruct = 'selective'  # 'selective', 'always' or 'never'
  config.model.gate_threshold = 0.3  # weight below which a modality is replaced (an equal share is 1)
  config.model.gate_temperature = 0.1  # softness of the gate
  config.model.fusion = 'soft_mask'  # 'soft_mask', 'hard_mask', 'uniform' or 'posterior'

  config.losses = ConfigDict()  # weights beside the task loss; 0 turns a term off
  config.losses.unimodal = 0.3  # every modality predicts alone
  config.losses.coalition = 0.5  # a random coalition predicts
  config.losses.recognition = 1.0  # the coalition that injection left intact is found
  config.losses.reconstruction = 1.0  # removed latents are rebuilt
  config.losses.confidence = 0.2  # quality of reconstructions is predicted

  # Trained beside it, same budget, for comparison.
  config.controls = (
    'concat+dropout',
    'late+dropout',
    'late-mlp+dropout',
    'concat',
    'unimodal',
    'majority',
    'oracle+dropout',
  )

  config.inject = ConfigDict()  # modality dropout in training, known to the trainer and hidden from the model
  config.inject.rate = 0.7  # every sample draws its own rate from U(0, rate)
  config.inject.fills = ('zeros', 'noise', 'swap')  # every removed slot draws one

  config.train_missing = ConfigDict()  # what is missing from the training data themselves, and never read
  config.train_missing.kind = 'none'  # 'none', 'modality', 'subset', 'frames', 'imbalanced' or 'block'
  config.train_missing.rate = 0.0  # probability or share
  config.train_missing.rate_law = 'fixed'  # 'fixed', or 'uniform' for U(0, rate) a sample
  config.train_missing.rates = ()  # (modality, rate) pairs of 'imbalanced'
  config.train_missing.kept = ()  # modalities that 'subset' keeps
  config.train_missing.fills = ('zeros',)  # what stands in their place

  # What is tested: KIND/FILL, see --mode=list.
  config.protocols = (
    'modality/zeros',
    'modality/noise',
    'modality/swap',
    'subset/zeros',
    'subset/swap',
    'imbalanced/zeros',
  )

  config.optimizer = ConfigDict()  # AdamW, linear warm-up, cosine decay
  config.optimizer.learning_rate = 3e-3  # peak
  config.optimizer.weight_decay = 1e-3
  config.optimizer.warmup_fraction = 0.05  # of all steps
  config.optimizer.clip_norm = 1.0  # global norm of gradients
  config.optimizer.average_decay = 0.99  # of the running average of parameters that is validated and used; 0 for none

  config.train = ConfigDict()
  config.train.batch_size = 64  # samples a step and seed
  config.train.epochs = 60
  config.train.num_evals = 12  # readings of the validation set; the best is selected
  config.train.validation_draws = 4  # draws of missingness a reading averages
  config.train.eval_batch_size = 0  # samples a step of evaluation, 0: what suits; any value gives the same metrics
  config.train.data_path = 'auto'  # where batches are made: 'device', 'host' (tf.data), or what fits
  config.train.checkpoint_seconds = 20.0  # pause between checkpoints

  config.study = ConfigDict()  # what --mode=study compares
  config.study.methods = ()  # beside model.name; see --mode=list
  config.study.regimes = ('complete',)  # what is missing from the training data: 'modality/0.5', 'imbalanced/0.5' ...
  config.study.peek = True  # show, apart, what selecting on the test split would have given
  config.study.valuation = True  # what each modality is worth to each method
  config.study.search = ConfigDict()
  config.study.search.points = 0  # random search of settings, all points in one program; 0 for none
  config.study.search.seeds = 1  # runs a point
  config.study.search.fields = ()  # (field, 'log' or 'linear', lowest, highest)

  config.plan = ConfigDict()  # what --mode=plan predicts
  config.plan.devices = (1, 8, 64, 256)  # for how many devices

  config.compile_cache = ''  # folder of compiled programs: '' for WORKDIR/xla_cache, 'off' for none
  config.mesh = ConfigDict()  # devices along the axes of the mesh, -1 for what is left
  config.mesh.seed = 0  # as many as divide the seeds
  config.mesh.data = -1
  config.parallel = 'jit'  # how the step is mapped over devices: 'jit', or 'pmap' (rows of a batch, one host)
  return config
