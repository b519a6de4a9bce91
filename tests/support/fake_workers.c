/* Training and scan workers that do as the test says, in a forked child. */
#include "tests/support/jobs_fixture.h"

#include <math.h>
#include <signal.h>
#include <sys/mman.h>

static void fake_checkpoint(struct wire_channel *ch, int epoch, enum fault fault)
{
	int pair[2];
	struct wire_message m = {.type = WIRE_CHECKPOINT, .n_fds = 1, .checkpoint = {(uint32_t)epoch}};

	if (fault == TRAIN_PIPE && pipe(pair) == 0)
		m.fds[0] = pair[0];
	else if (fault == TRAIN_DIR)
		m.fds[0] = open("/", O_RDONLY | O_DIRECTORY);
	else
		io_memfd_new("checkpoint", &m.fds[0]);
	dprintf(m.fds[0], "%d", epoch);
	if (fault != TRAIN_LIES)
		io_memfd_seal(m.fds[0]);
	wire_send(ch, &m, 0);
	close(m.fds[0]);
}

/* What it goes by: the spec, and one knob more. */
static void fake_knobs(struct wire_channel *ch, enum fault fault)
{
	const char *text = fault == TRAIN_WINGS ? "{\"dataset\":\"toy\",\"wings\":2}"
						: "{\"dataset\":\"toy\",\"epochs\":3}";
	struct wire_message m = {.type = WIRE_KNOBS, .n_fds = 1};

	io_memfd("knobs.json", text, strlen(text), &m.fds[0]);
	for (int i = 0; i < (fault == TRAIN_TWICE ? 2 : 1); i++)
		wire_send(ch, &m, 0);
	close(m.fds[0]);
}

static void fake_train(struct wire_channel *ch, enum fault fault)
{
	static const char *const texts[] = {"{\"model\":1}\n", "weights", "a\nb\n", "slice\n1\n"};
	struct wire_slice slices[] = {{0.5f, 0.7, 1.5}, {1, 0.9, 0.5}};
	struct wire_message m, model = {.type = WIRE_MODEL, .model = {.slices = slices, .n_slices = 2}};
	char text[64] = "";
	int epoch = 0, number = shared->trains++;

	if (wire_recv(ch, &m, 0) < 0 || m.type != WIRE_TRAIN || pread(m.fds[1], text, 5, 0) != 5 ||
	    strcmp(text, "CACHE") != 0)
		_exit(9);
	if (m.n_fds == 3 && pread(m.fds[2], text, 8, 0) > 0)
		epoch = atoi(text);
	if (number < 16)
		shared->resumed_from[number] = epoch;
	wire_clear(&m);
	fake_knobs(ch, fault);
	for (epoch++; epoch <= EPOCHS; epoch++) {
		wire_send(ch,
			  &(struct wire_message){.type = WIRE_PROGRESS,
						 .progress = {.epoch = (uint32_t)epoch,
							      .epochs = EPOCHS,
							      .batch = 1,
							      .batches = 2,
							      .samples_per_s = 100,
							      .eta_s = 75,
							      .percent = 100.0 * epoch / EPOCHS}},
			  0);
		if (fault == TRAIN_DIES && epoch == 3)
			kill(getpid(), SIGKILL);
		if (fault == TRAIN_HANGS && epoch == 3)
			pause();
		if (fault == TRAIN_EPOCHS && epoch == 3)
			epoch--;
		if (fault == TRAIN_GARBAGE && epoch == 3 && write(ch->fd, "nonsense", 8) == 8)
			pause();
		if (fault == TRAIN_FAILS && epoch == 2) {
			wire_send(ch,
				  &(struct wire_message){.type = WIRE_FAILED,
							 .failed = {ERR_DIVERGED, "in epoch 2"}},
				  0);
			_exit(0);
		}
		if (fault == TRAIN_WAITS && epoch == 2) {
			shared->training = 1;
			if (wire_recv(ch, &m, 0) < 0 || m.type != WIRE_STOP)
				_exit(0);
			wire_send(ch, &(struct wire_message){.type = WIRE_STOPPED}, 0);
			_exit(0);
		}
		wire_send(ch,
			  &(struct wire_message){.type = WIRE_EPOCH,
						 .epoch = {.epoch = (uint32_t)epoch,
							   .seconds = 1.5,
							   .lr = 0.1,
							   .train_loss = 2.0 / epoch,
							   .train_accuracy = 0.25 * epoch,
							   .slices = slices,
							   .n_slices = 2}},
			  0);
		fake_checkpoint(ch, epoch, fault);
		while (fault == TRAIN_COPIES && epoch == 1)
			fake_checkpoint(ch, epoch, fault);
	}
	for (int i = 0; i < 4; i++)
		io_memfd("file", texts[i], strlen(texts[i]), &model.fds[i]);
	model.n_fds = 4;
	if (fault == TRAIN_EARLY)
		model.fds[1] = open("/", O_RDONLY | O_DIRECTORY);
	wire_send(ch, &model, 0);
}

static void fake_scan(struct wire_channel *ch, enum fault fault)
{
	struct wire_message m, answer = {.type = WIRE_SCANNED, .n_fds = 1};
	int pair[2];

	shared->scans++;
	shared->scanned_files = shared->scanned_bytes = shared->packs = shared->bad = 0;
	while (wire_recv(ch, &m, 0) == 0) {
		switch (m.type) {
		case WIRE_SCAN:
			snprintf(shared->scanned_shape, sizeof(shared->scanned_shape), "%ux%ux%u",
				 m.scan.channels, m.scan.height, m.scan.width);
			break;
		case WIRE_BAD:
			shared->bad +=
				strstr(m.bad.path, "crash") &&
				strcmp(m.bad.reason, fault == SCAN_HANGS ? "the decoder hung on it"
									 : "the decoder crashed on it") == 0;
			break;
		case WIRE_FILES:
			if (fault == SCAN_DIES)
				_exit(0);
			shared->packs++;
			for (uint32_t i = 0; i < m.files.n_files; i++) {
				/* Each file holds its own path again and again. */
				const struct wire_file *f = &m.files.files[i];
				char text[256] = "";

				if (fault == SCAN_HANGS && strstr(f->path, "crash"))
					pause();
				if (fault == SCAN_CRASHES && strstr(f->path, "crash"))
					kill(getpid(), SIGKILL); /* cmocka catches SIGSEGV, in a child too */
				shared->decoded++;
				if (pread(m.fds[0], text, strlen(f->path), shared->packs == -1) < 0)
					_exit(9);
				shared->scanned_files++;
				shared->scanned_bytes += (int)f->len;
			}
			for (int i = 0; i < (fault == SCAN_THANKS ? 100 : 1); i++)
				wire_send(ch,
					  &(struct wire_message){.type = WIRE_TAKEN,
								 .taken = {m.files.n_files}},
					  0);
			if (fault != SCAN_EARLY)
				break;
			io_memfd("json", "{}\n", 3, &answer.fds[0]);
			wire_send(ch, &answer, 0);
			pause();
			break;
		case WIRE_FINISH:
			if (fault == SCAN_EMPTY) {
				answer.scanned.code = ERR_EMPTY_DATASET;
				answer.scanned.detail = "0 images";
			} else {
				dprintf(m.fds[0], "CACHE %d", shared->scanned_files);
			}
			if (fault == SCAN_PIPE && pipe(pair) == 0)
				answer.fds[0] = pair[0];
			else if (fault == SCAN_DIR)
				answer.fds[0] = open("/", O_RDONLY | O_DIRECTORY);
			else if (fault == SCAN_UNSEALED)
				io_memfd_new("json", &answer.fds[0]);
			else
				io_memfd("json", "{\"classes\":2}\n", 14, &answer.fds[0]);
			wire_send(ch, &answer, 0);
			_exit(0);
		default:
			_exit(9);
		}
		wire_clear(&m);
	}
}

void fake_worker(const char *kind, int fd)
{
	enum fault fault = WELL;
	struct wire_channel ch;
	struct wire_message m;

	if ((shared->fault < SCAN_DIES) == (strcmp(kind, "train") == 0) && shared->faulty > 0) {
		shared->faulty--;
		fault = shared->fault;
	}
	if (wire_init(&ch, fd, WIRE_TO_DAEMON) < 0 || wire_recv(&ch, &m, 0) < 0 || m.type != WIRE_SETUP)
		_exit(9);
	if (strcmp(kind, "train") == 0)
		fake_train(&ch, fault);
	else
		fake_scan(&ch, fault);
	_exit(0);
}
