/* An ALSA output that keeps the time of a sound card and remembers what it played, and when.
 *
 *   pcm_type.labsink { lib "/path/libasound_module_pcm_labsink.so" }
 *   pcm.!default { type plug slave.pcm { type labsink file "/path/recording" } }
 *
 * A ring of at most 128 KiB (as on a Raspberry Pi's I2S), wake-ups by period, EPIPE when it runs dry. The file is a row of
 * blocks, in the machine's byte order: u64 CLOCK_MONOTONIC in ns at which the block's first frame was heard, u32 frames a
 * second, u32 frames, then the frames (16 bit, stereo; of 32 bits the upper ones). When nothing is heard nothing is written.
 */
#define _GNU_SOURCE
#include <alsa/asoundlib.h>
#include <alsa/pcm_external.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define RING_BYTES (128 * 1024)

struct sink {
	snd_pcm_ioplug_t io;
	pthread_mutex_t lock;
	int timer, file;
	int16_t (*ring)[2];
	snd_pcm_uframes_t size;     /* of the ring, in frames */
	snd_pcm_uframes_t boundary, avail_min;
	uint64_t written, played;   /* frames since prepare */
	uint64_t start;             /* ns; 0: the clock stands */
	uint64_t base;              /* frames played when the clock was started */
	int runs_dry;               /* the player asked that an underrun does not stop the clock */
};

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static uint64_t clock_frames(struct sink *s)
{
	return s->start ? s->base + (now_ns() - s->start) / 1000 * s->io.rate / 1000000 : s->played;
}

static void block(struct sink *s, uint64_t frames)
{
	struct { uint64_t ns; uint32_t rate, frames; } head = {
		s->start + (s->played - s->base) * 1000000000ull / s->io.rate, s->io.rate, frames
	};
	struct iovec v[2] = { { &head, sizeof head }, { s->ring[s->played % s->size], frames * 4 } };
	if (writev(s->file, v, 2) < 0)
		SNDERR("labsink: the recording cannot be written");
	s->played += frames;
}

/* Writes what has been heard by now; true when the ring is dry. Called with the lock held. */
static int advance(struct sink *s)
{
	uint64_t clock = clock_frames(s), upto = clock < s->written ? clock : s->written;
	while (s->start && s->played < upto) {
		uint64_t whole = s->size - s->played % s->size, n = upto - s->played;
		block(s, n < whole ? n : whole);
	}
	int dry = s->start && clock >= s->written;
	if (dry && s->runs_dry)
		s->played = s->written = clock;
	return dry && !s->runs_dry;
}

static int start(snd_pcm_ioplug_t *io)
{
	struct sink *s = io->private_data;
	pthread_mutex_lock(&s->lock);
	s->base = s->played;
	s->start = now_ns();
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static int stop(snd_pcm_ioplug_t *io)
{
	struct sink *s = io->private_data;
	pthread_mutex_lock(&s->lock);
	advance(s);
	s->start = 0;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static int pause_(snd_pcm_ioplug_t *io, int on)
{
	return on ? stop(io) : start(io);
}

static snd_pcm_sframes_t pointer(snd_pcm_ioplug_t *io)
{
	struct sink *s = io->private_data;
	snd_pcm_sframes_t at = -EPIPE;
	pthread_mutex_lock(&s->lock);
	if (!advance(s) || io->state == SND_PCM_STATE_DRAINING)
		at = s->played % s->boundary;
	else
		s->start = 0;
	pthread_mutex_unlock(&s->lock);
	return at;
}

static snd_pcm_sframes_t transfer(snd_pcm_ioplug_t *io, const snd_pcm_channel_area_t *areas, snd_pcm_uframes_t offset,
				  snd_pcm_uframes_t frames)
{
	struct sink *s = io->private_data;
	const char *from = (const char *)areas->addr + (areas->first + areas->step * offset) / 8;
	pthread_mutex_lock(&s->lock);
	advance(s);
	for (snd_pcm_uframes_t i = 0; i < frames; i++, s->written++)
		for (int c = 0; c < 2; c++)
			s->ring[s->written % s->size][c] = io->format == SND_PCM_FORMAT_S16_LE
				? ((const int16_t *)from)[2 * i + c] : ((const int32_t *)from)[2 * i + c] >> 16;
	pthread_mutex_unlock(&s->lock);
	return frames;
}

static int prepare(snd_pcm_ioplug_t *io)
{
	struct sink *s = io->private_data;
	/* Wakes whoever polls, four times a period, whether the clock runs or not. */
	long tick = io->period_size * 250000000ull / io->rate;
	if (tick > 10000000)
		tick = 10000000;
	struct itimerspec on = { { 0, tick }, { 0, tick } };
	stop(io);
	pthread_mutex_lock(&s->lock);
	s->written = s->played = s->base = 0;
	timerfd_settime(s->timer, 0, &on, NULL);
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static int hw_params(snd_pcm_ioplug_t *io, snd_pcm_hw_params_t *p)
{
	struct sink *s = io->private_data;
	(void)p;
	free(s->ring);
	s->size = io->buffer_size;
	s->ring = calloc(s->size, sizeof *s->ring);
	return s->ring ? 0 : -ENOMEM;
}

static int sw_params(snd_pcm_ioplug_t *io, snd_pcm_sw_params_t *p)
{
	struct sink *s = io->private_data;
	snd_pcm_uframes_t threshold = 0;
	snd_pcm_sw_params_get_boundary(p, &s->boundary);
	snd_pcm_sw_params_get_stop_threshold(p, &threshold);
	snd_pcm_sw_params_get_avail_min(p, &s->avail_min);
	s->runs_dry = threshold >= s->boundary;
	return 0;
}

static int drain(snd_pcm_ioplug_t *io)
{
	struct sink *s = io->private_data;
	if (!s->start && s->written)
		start(io);
	for (;;) {
		pthread_mutex_lock(&s->lock);
		int over = advance(s) || !s->start || s->played >= s->written;
		if (over)
			s->start = 0;
		pthread_mutex_unlock(&s->lock);
		if (over)
			return 0;
		if (io->nonblock)
			return -EAGAIN;
		usleep(2000);
	}
}

static int revents(snd_pcm_ioplug_t *io, struct pollfd *fds, unsigned int n, unsigned short *events)
{
	struct sink *s = io->private_data;
	uint64_t ticks;
	*events = 0;
	if (n != 1 || !(fds->revents & POLLIN) || read(s->timer, &ticks, sizeof ticks) < 0)
		return 0;
	pthread_mutex_lock(&s->lock);
	int dry = advance(s);
	snd_pcm_uframes_t room = s->size - (s->written - s->played);
	pthread_mutex_unlock(&s->lock);
	if (io->state == SND_PCM_STATE_XRUN)
		*events = POLLOUT | POLLERR;
	else if (dry || room >= s->avail_min || (room && io->state != SND_PCM_STATE_RUNNING))
		*events = POLLOUT;       /* dry: the write that follows finds the underrun */
	return 0;
}

static int delay(snd_pcm_ioplug_t *io, snd_pcm_sframes_t *frames)
{
	struct sink *s = io->private_data;
	pthread_mutex_lock(&s->lock);
	advance(s);
	*frames = s->written - s->played;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

static int close_(snd_pcm_ioplug_t *io)
{
	struct sink *s = io->private_data;
	stop(io);
	close(s->timer);
	close(s->file);
	free(s->ring);
	free(s);
	return 0;
}

static const snd_pcm_ioplug_callback_t callbacks = {
	.start = start, .stop = stop, .pause = pause_, .pointer = pointer, .transfer = transfer, .prepare = prepare,
	.hw_params = hw_params, .sw_params = sw_params, .drain = drain, .poll_revents = revents, .delay = delay, .close = close_,
};

SND_PCM_PLUGIN_DEFINE_FUNC(labsink)
{
	static const unsigned access[] = { SND_PCM_ACCESS_RW_INTERLEAVED, SND_PCM_ACCESS_MMAP_INTERLEAVED };
	static const unsigned formats[] = { SND_PCM_FORMAT_S16_LE, SND_PCM_FORMAT_S32_LE };
	snd_config_t *item;
	const char *path;
	(void)root;
	if (snd_config_search(conf, "file", &item) < 0 || snd_config_get_string(item, &path) < 0 || stream != SND_PCM_STREAM_PLAYBACK)
		return -EINVAL;
	struct sink *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	s->file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	s->boundary = 1u << 30;
	s->avail_min = 1;
	pthread_mutex_init(&s->lock, NULL);
	s->io.version = SND_PCM_IOPLUG_VERSION;
	s->io.name = "jukebox lab";
	s->io.callback = &callbacks;
	s->io.private_data = s;
	s->io.flags = SND_PCM_IOPLUG_FLAG_BOUNDARY_WA | SND_PCM_IOPLUG_FLAG_MONOTONIC;
	s->io.poll_fd = s->timer;
	s->io.poll_events = POLLIN;
	int e = s->file < 0 || s->timer < 0 ? -EIO : snd_pcm_ioplug_create(&s->io, name, stream, mode);
	if (e < 0) {
		free(s);
		return e;
	}
	if ((e = snd_pcm_ioplug_set_param_list(&s->io, SND_PCM_IOPLUG_HW_ACCESS, 2, access)) < 0 ||
	    (e = snd_pcm_ioplug_set_param_list(&s->io, SND_PCM_IOPLUG_HW_FORMAT, 2, formats)) < 0 ||
	    (e = snd_pcm_ioplug_set_param_minmax(&s->io, SND_PCM_IOPLUG_HW_CHANNELS, 2, 2)) < 0 ||
	    (e = snd_pcm_ioplug_set_param_minmax(&s->io, SND_PCM_IOPLUG_HW_RATE, 8000, 192000)) < 0 ||
	    (e = snd_pcm_ioplug_set_param_minmax(&s->io, SND_PCM_IOPLUG_HW_PERIOD_BYTES, 128, RING_BYTES / 2)) < 0 ||
	    (e = snd_pcm_ioplug_set_param_minmax(&s->io, SND_PCM_IOPLUG_HW_BUFFER_BYTES, 256, RING_BYTES)) < 0 ||
	    (e = snd_pcm_ioplug_set_param_minmax(&s->io, SND_PCM_IOPLUG_HW_PERIODS, 2, 64)) < 0) {
		snd_pcm_ioplug_delete(&s->io);
		return e;
	}
	*pcmp = s->io.pcm;
	return 0;
}

SND_PCM_PLUGIN_SYMBOL(labsink);
