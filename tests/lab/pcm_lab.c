/* An ALSA PCM with the clock of a DAC and nothing behind it: what players that know ALSA are compared on.
 *
 *   cc -O2 -shared -fPIC -DPIC -o libasound_module_pcm_lab.so pcm_lab.c -lasound
 *   pcm_type.lab { lib "/path/libasound_module_pcm_lab.so" }
 *   pcm.lab { type lab hint { show on description lab } }
 *
 * Stereo, 16 or 32 bits, 8 to 192 kHz. It wakes whoever waits once a period, as hardware does, and at once while there is
 * room. Written too late, it stops with EPIPE; a player that asks for no stop hears silence. */
#include <alsa/asoundlib.h>
#include <alsa/pcm_external.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

typedef struct {
	snd_pcm_ioplug_t io;
	uint64_t start, written, base; /* ns, 0: the clock stands; frames; frames played before */
	snd_pcm_uframes_t avail_min, boundary;
	int timer, endless;
} lab_t;

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

/* Frames that were due by now; those that were not there are silence, if it may go on. */
static uint64_t played(lab_t *l)
{
	uint64_t due = l->base + (l->start ? (now() - l->start) / 1000 * l->io.rate / 1000000 : 0);
	if (due > l->written && l->endless)
		l->written = due;
	return due < l->written ? due : l->written;
}

static int is_dry(lab_t *l)
{
	return l->start && !l->endless && played(l) == l->written && l->io.state != SND_PCM_STATE_DRAINING;
}

static uint64_t room(lab_t *l)
{
	return l->io.buffer_size - (l->written - played(l));
}

/* A tick a period, in step with the clock; before it runs, one at once. */
static void arm(lab_t *l, uint64_t first)
{
	uint64_t every = (uint64_t)l->io.period_size * 1000000000u / l->io.rate;
	struct itimerspec on = { { every / 1000000000u, every % 1000000000u }, { first / 1000000000u, first % 1000000000u } };
	timerfd_settime(l->timer, TFD_TIMER_ABSTIME, &on, NULL);
}

static void clear(lab_t *l)
{
	uint64_t ticks;
	if (read(l->timer, &ticks, sizeof ticks) < 0) { } /* there was none */
}

static int lab_start(snd_pcm_ioplug_t *io)
{
	lab_t *l = io->private_data;
	l->start = now();
	arm(l, l->start + (uint64_t)io->period_size * 1000000000u / io->rate);
	return 0;
}

static int lab_stop(snd_pcm_ioplug_t *io)
{
	lab_t *l = io->private_data;
	l->base = played(l);
	l->start = 0;
	return 0;
}

static int lab_pause(snd_pcm_ioplug_t *io, int pause)
{
	return pause ? lab_stop(io) : lab_start(io);
}

static int lab_prepare(snd_pcm_ioplug_t *io)
{
	lab_t *l = io->private_data;
	l->start = l->written = l->base = 0;
	arm(l, 1);
	return 0;
}

static snd_pcm_sframes_t lab_pointer(snd_pcm_ioplug_t *io)
{
	lab_t *l = io->private_data;
	return is_dry(l) ? -EPIPE : (snd_pcm_sframes_t)(played(l) % l->boundary);
}

static snd_pcm_sframes_t lab_transfer(snd_pcm_ioplug_t *io, const snd_pcm_channel_area_t *areas, snd_pcm_uframes_t offset, snd_pcm_uframes_t size)
{
	lab_t *l = io->private_data;
	(void)areas, (void)offset;
	l->written += size;
	if (l->start && room(l) < l->avail_min)
		clear(l);
	return size;
}

static int lab_delay(snd_pcm_ioplug_t *io, snd_pcm_sframes_t *delay)
{
	lab_t *l = io->private_data;
	*delay = l->written - played(l);
	return 0;
}

static int lab_sw_params(snd_pcm_ioplug_t *io, snd_pcm_sw_params_t *p)
{
	lab_t *l = io->private_data;
	snd_pcm_uframes_t stop;
	snd_pcm_sw_params_get_boundary(p, &l->boundary);
	snd_pcm_sw_params_get_avail_min(p, &l->avail_min);
	snd_pcm_sw_params_get_stop_threshold(p, &stop);
	l->endless = stop >= l->boundary;
	return 0;
}

static int lab_revents(snd_pcm_ioplug_t *io, struct pollfd *fd, unsigned n, unsigned short *revents)
{
	lab_t *l = io->private_data;
	*revents = 0;
	if (n != 1 || !(fd[0].revents & POLLIN))
		return 0;
	if (io->state == SND_PCM_STATE_XRUN)
		*revents = POLLOUT | POLLERR;
	else if (is_dry(l) || room(l) >= l->avail_min || (!l->start && room(l)))
		*revents = POLLOUT;
	else
		clear(l);
	return 0;
}

static int lab_close(snd_pcm_ioplug_t *io)
{
	lab_t *l = io->private_data;
	close(l->timer);
	free(l);
	return 0;
}

static const snd_pcm_ioplug_callback_t callbacks = {
	.start = lab_start, .stop = lab_stop, .pause = lab_pause, .prepare = lab_prepare, .pointer = lab_pointer, .transfer = lab_transfer,
	.delay = lab_delay, .sw_params = lab_sw_params, .poll_revents = lab_revents, .close = lab_close,
};

SND_PCM_PLUGIN_DEFINE_FUNC(lab)
{
	static const unsigned access[] = { SND_PCM_ACCESS_RW_INTERLEAVED, SND_PCM_ACCESS_MMAP_INTERLEAVED };
	static const unsigned formats[] = { SND_PCM_FORMAT_S16_LE, SND_PCM_FORMAT_S32_LE };
	lab_t *l = stream == SND_PCM_STREAM_PLAYBACK ? calloc(1, sizeof *l) : NULL;
	(void)root, (void)conf;
	if (!l)
		return -EINVAL;
	l->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	l->boundary = 1u << 30;
	l->avail_min = 1;
	l->io.version = SND_PCM_IOPLUG_VERSION;
	l->io.name = "lab";
	l->io.callback = &callbacks;
	l->io.private_data = l;
	l->io.flags = SND_PCM_IOPLUG_FLAG_BOUNDARY_WA | SND_PCM_IOPLUG_FLAG_MONOTONIC;
	l->io.poll_fd = l->timer;
	l->io.poll_events = POLLIN;
	int err = l->timer < 0 ? -errno : snd_pcm_ioplug_create(&l->io, name, stream, mode);
	if (err < 0) {
		if (l->timer >= 0)
			close(l->timer);
		free(l);
		return err;
	}
	if ((err = snd_pcm_ioplug_set_param_list(&l->io, SND_PCM_IOPLUG_HW_ACCESS, 2, access)) < 0 ||
	    (err = snd_pcm_ioplug_set_param_list(&l->io, SND_PCM_IOPLUG_HW_FORMAT, 2, formats)) < 0 ||
	    (err = snd_pcm_ioplug_set_param_minmax(&l->io, SND_PCM_IOPLUG_HW_CHANNELS, 2, 2)) < 0 ||
	    (err = snd_pcm_ioplug_set_param_minmax(&l->io, SND_PCM_IOPLUG_HW_RATE, 8000, 192000)) < 0 ||
	    (err = snd_pcm_ioplug_set_param_minmax(&l->io, SND_PCM_IOPLUG_HW_PERIOD_BYTES, 128, 64 << 10)) < 0 ||
	    (err = snd_pcm_ioplug_set_param_minmax(&l->io, SND_PCM_IOPLUG_HW_BUFFER_BYTES, 256, 128 << 10)) < 0 ||
	    (err = snd_pcm_ioplug_set_param_minmax(&l->io, SND_PCM_IOPLUG_HW_PERIODS, 2, 64)) < 0) {
		snd_pcm_ioplug_delete(&l->io);
		return err;
	}
	*pcmp = l->io.pcm;
	return 0;
}

SND_PCM_PLUGIN_SYMBOL(lab);
